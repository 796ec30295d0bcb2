package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"evenweave"
	"evenweave/internal/state"
	"evenweave/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	blocks  = 20
	samples = 100
	quiet   = 4 * time.Second
)

// sealed is a random state of 20 blocks, the last of which is short.
func sealed(t *testing.T) *state.Sealed {
	t.Helper()
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Uint8, Role: evenweave.Trained,
		Shape: []int{(blocks-1)*state.BlockSize + 100}}})
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(l, samples)
	s.Step = 7
	rand.NewChaCha8([32]byte{1}).Read(s.Image[:(blocks-1)*state.BlockSize+100])
	return state.Seal(s)
}

func of(s *state.Sealed) Download {
	return Download{Layout: s.Layout, Samples: samples, Step: s.Step, Quiet: quiet,
		Image: bytes.Repeat([]byte{7}, len(s.Image))} // used before
}

// holder sends a state; change may see and change what is sent from an offset on, or end it by an error.
func holder(s *state.Sealed, change func(at int64, p []byte) error) Source {
	encoding := bytes.NewReader(slices.Concat(s.Head, s.Image))
	return func(ctx context.Context, offset, length int64) (io.Reader, error) {
		if length == 0 {
			length = 1 << 62
		}
		r := io.NewSectionReader(encoding, offset, length)
		return reader(func(p []byte) (int, error) {
			if err := context.Cause(ctx); err != nil {
				return 0, err
			}
			at, _ := r.Seek(0, io.SeekCurrent)
			n, err := r.Read(p[:min(len(p), 1<<18)])
			if change != nil && err == nil {
				err = change(offset+at, p[:n])
			}
			return n, err
		}), nil
	}
}

// passedOn reads what an assembly has between two offsets.
func passedOn(ctx context.Context, a *Assembly, at, end int64) io.Reader {
	return reader(func(p []byte) (int, error) {
		for piece, err := range a.Pieces(ctx, at, end) {
			n := copy(p, piece)
			at += int64(n)
			return n, err
		}
		return 0, io.EOF
	})
}

type reader func(p []byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

var errDead = errors.New("connection lost")

// A source that copies its state first may take long: its signs of life count as progress, for a while.
func TestSignsOfLifeAreProgress(t *testing.T) {
	s := sealed(t)
	for _, copying := range []time.Duration{10 * quiet, signsCount + 2*quiet} {
		synctest.Test(t, func(t *testing.T) {
			begun, signs, d := time.Now(), 0, of(s)
			d.Arrived = func(blocks int) {
				if blocks == 0 {
					signs++
				}
			}
			whole := holder(s, nil)
			d.Sources = []Source{func(ctx context.Context, offset, length int64) (io.Reader, error) {
				source, err := whole(ctx, offset, length)
				return reader(func(p []byte) (int, error) {
					if time.Since(begun) < copying && ctx.Err() == nil {
						time.Sleep(time.Second) // virtual
						return 0, nil
					}
					return source.Read(p)
				}), err
			}}
			got, err := d.Run(t.Context())
			switch took := time.Since(begun); {
			case copying < signsCount && (err != nil || !bytes.Equal(got.Image, s.Image) || signs < 30):
				t.Errorf("copied for %v: %d signs of life, %v", copying, signs, err)
			case copying > signsCount && (err == nil || took > signsCount+2*quiet):
				t.Errorf("a source that only gives signs of life is given up after %v, %v", took, err)
			}
		})
	}
}

// A state arrives whole although a holder dies half way, one damages a block, one sends nothing more, and one's block
// is slow; what arrived before another attempt is not fetched again.
func TestWhateverHoldersDo(t *testing.T) {
	s := sealed(t)
	half := int64(len(s.Head)) + s.Layout.Size/2
	die := func(at int64, _ []byte) error {
		if at > half {
			return errDead
		}
		return nil
	}
	damaged := false
	damage := func(at int64, p []byte) error {
		if at > half {
			p[0] ^= 1
			damaged = true
		}
		return nil
	}
	for name, holders := range map[string]func(ctx context.Context) []Source{
		"one": func(context.Context) []Source { return []Source{holder(s, nil)} },
		"three": func(context.Context) []Source {
			return []Source{holder(s, nil), holder(s, nil),
				holder(s, nil)}
		},
		"one dies": func(context.Context) []Source { return []Source{holder(s, die), holder(s, nil)} },
		"one is damaged": func(context.Context) []Source {
			first := holder(s, damage)
			return []Source{func(ctx context.Context, offset, length int64) (io.Reader, error) {
				if damaged {
					t.Error("the holder that sent a damaged block is asked again")
				}
				return first(ctx, offset, length)
			}, holder(s, func(int64, []byte) error {
				time.Sleep(time.Millisecond) // virtual: the other sends its damaged block before
				return nil
			})}
		},
		"all but one die": func(context.Context) []Source {
			return []Source{holder(s, die), holder(s, die),
				holder(s, nil)}
		},
		"one is silent": func(ctx context.Context) []Source {
			return []Source{holder(s, func(at int64, _ []byte) error {
				if at > half/2 {
					<-ctx.Done()
				}
				return nil
			}), holder(s, nil)}
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				d := of(s)
				d.Arrived = func(n int) {
					if n == blocks { // the silent holder's stream ends with the download
						cancel()
					}
				}
				d.Sources = holders(ctx)
				got, err := d.Run(t.Context())
				if err != nil || got.SHA256 != s.SHA256 || !bytes.Equal(got.Image, s.Image) {
					t.Fatalf("another state, or %v", err)
				}
				if strings.Contains(name, "damaged") != damaged {
					t.Errorf("a holder sent a damaged block: %v", damaged)
				}
				damaged = false
			})
		})
	}
}

// A download without progress ends, in the time that it is given without a block and no earlier, and says how far it
// came. The next attempt fetches the rest alone.
func TestProgressIsTheDeadline(t *testing.T) {
	s := sealed(t)
	synctest.Test(t, func(t *testing.T) {
		var slow atomic.Int64
		late := holder(s, func(at int64, _ []byte) error {
			if at > int64(len(s.Head)) && at%state.BlockSize == int64(len(s.Head))%state.BlockSize {
				time.Sleep(quiet - time.Second) // virtual: each block is slow, and all of them take a minute
				if slow.Add(1) > blocks/2 {
					return errDead
				}
			}
			return nil
		})
		d := of(s)
		var part *Assembly
		d.Sources, d.Began = []Source{late}, func(a *Assembly) { part = a }
		began := time.Now()
		_, err := d.Run(t.Context())
		took := time.Since(began)
		if !errors.Is(err, proto.ErrSilent) || !errors.Is(err, errDead) || took < blocks/2*(quiet-time.Second) {
			t.Fatalf("after %v: %v", took, err)
		}
		if part == nil || part.Missing() > blocks/2 || part.Missing() < blocks/2-2 {
			t.Fatalf("part of the state: %v", err)
		}
		fetched := 0
		d.Resume, d.Sources = part, []Source{holder(s, func(at int64, p []byte) error {
			if at >= int64(len(s.Head)) {
				fetched += len(p)
			}
			return nil
		})}
		missing := part.Missing()
		got, err := d.Run(t.Context())
		if err != nil || !bytes.Equal(got.Image, s.Image) || fetched > missing*state.BlockSize {
			t.Errorf("%d bytes were fetched for %d blocks: %v", fetched, missing, err)
		}
	})
}

// The reserve is asked only when the others send nothing.
func TestTheReserveIsForTheRest(t *testing.T) {
	s := sealed(t)
	for _, dead := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var asked atomic.Int64
			d := of(s)
			d.Head = []Source{holder(s, nil)}
			d.Reserve = []Source{holder(s, func(int64, []byte) error { asked.Add(1); return nil })}
			d.Sources = []Source{holder(s, func(at int64, _ []byte) error {
				if dead {
					return errDead
				}
				return nil
			})}
			got, err := d.Run(t.Context())
			if err != nil || !bytes.Equal(got.Image, s.Image) || (asked.Load() > 0) != dead {
				t.Errorf("dead: %v; the reserve sent %d parts: %v", dead, asked.Load(), err)
			}
		})
	}
}

// A download ends with its last block: neither a slow holder, whose blocks another has sent, nor the reserve is waited
// for.
func TestADownloadEndsWithItsLastBlock(t *testing.T) {
	s := sealed(t)
	synctest.Test(t, func(t *testing.T) {
		d := of(s)
		d.Head = []Source{holder(s, nil)}
		d.Sources = []Source{holder(s, nil), func(ctx context.Context, offset, length int64) (io.Reader, error) {
			return holder(s, func(int64, []byte) error {
				select {
				case <-time.After(quiet / 2):
				case <-ctx.Done():
				}
				return nil
			})(ctx, offset, length)
		}}
		d.Reserve = []Source{holder(s, nil)}
		began := time.Now()
		got, err := d.Run(t.Context())
		if err != nil || !bytes.Equal(got.Image, s.Image) || time.Since(began) > retryPause {
			t.Errorf("it took %v: %v", time.Since(began), err)
		}
	})
}

// A chain: each member passes on what it has, before it has all. The first source sends one copy.
func TestBlocksArePassedOn(t *testing.T) {
	s := sealed(t)
	synctest.Test(t, func(t *testing.T) {
		const members = 8
		var sent atomic.Int64
		first := holder(s, func(at int64, p []byte) error {
			time.Sleep(time.Millisecond) // virtual
			if at >= int64(len(s.Head)) {
				sent.Add(int64(len(p)))
			}
			return nil
		})
		parts := make([]atomic.Pointer[Assembly], members)
		results := make(chan error, members)
		began := time.Now()
		for i := range members {
			d := of(s)
			d.Began = func(a *Assembly) { parts[i].Store(a) }
			d.Head, d.Sources = []Source{first}, []Source{first}
			if i > 0 {
				d.Sources = []Source{func(ctx context.Context, offset, length int64) (io.Reader, error) {
					if a := parts[i-1].Load(); a != nil {
						return passedOn(ctx, a, offset, offset+length), nil
					}
					return nil, errDead
				}}
			}
			go func() {
				got, err := d.Run(t.Context())
				if err == nil && !bytes.Equal(got.Image, s.Image) {
					err = errors.New("another state")
				}
				results <- err
			}()
		}
		for range members {
			if err := <-results; err != nil {
				t.Error(err)
			}
		}
		if sent.Load() != s.Layout.Size {
			t.Errorf("the first source sent %d bytes of a state of %d", sent.Load(), s.Layout.Size)
		}
		if took, one := time.Since(began), 4*blocks*time.Millisecond; took > 2*one {
			t.Errorf("%d members took %v, one alone takes %v", members, took, one)
		}
	})
}

// A head of another step, or damaged, is no state.
func TestAnotherHeadIsRefused(t *testing.T) {
	s := sealed(t)
	synctest.Test(t, func(t *testing.T) {
		d := of(s)
		d.Step, d.Sources = 8, []Source{holder(s, nil)}
		if _, err := d.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "got step 7") {
			t.Errorf("another step: %v", err)
		}
		d, began := of(s), time.Now()
		d.Sources = []Source{holder(s, func(_ int64, p []byte) error { p[0] ^= 1; return nil })}
		if _, err := d.Run(t.Context()); !errors.Is(err, state.ErrDamaged) || time.Since(began) > 0 {
			t.Errorf("a damaged head, after %v: %v", time.Since(began), err)
		}
		d = of(s)
		d.Sum = new([32]byte)
		d.Sources = []Source{holder(s, nil)}
		if _, err := d.Run(t.Context()); !errors.Is(err, state.ErrDamaged) {
			t.Errorf("another state: %v", err)
		}
		d = of(s)
		d.Gone = func(err error) bool { return errors.Is(err, errDead) }
		d.Sources = []Source{holder(s, func(int64, []byte) error { return errDead })}
		if _, err := d.Run(t.Context()); !errors.Is(err, errDead) || time.Since(began) > 0 {
			t.Errorf("a source that lacks the state, after %v: %v", time.Since(began), err)
		}
	})
}
