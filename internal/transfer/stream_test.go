package transfer

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/internal/state"
	"evenweave/proto"
)

// A stream goes on where its source broke off; it ends at once where a block is damaged, and after Quiet where nothing
// comes. What its reader takes its time for is no silence.
func TestStream(t *testing.T) {
	s := sealed(t)
	half := int64(len(s.Head)) + s.Layout.Size/2
	breaks := 0
	for name, c := range map[string]struct {
		change func(ctx context.Context) func(at int64, p []byte) error
		want   error
		took   time.Duration
	}{
		"whole": {nil, nil, blocks * 2 * quiet},
		"breaks off": {func(context.Context) func(int64, []byte) error {
			return func(at int64, p []byte) error {
				if breaks++; breaks%5 == 0 {
					return errDead
				}
				return nil
			}
		}, nil, blocks * 2 * quiet},
		"damaged": {func(context.Context) func(int64, []byte) error {
			return func(at int64, p []byte) error {
				if at > half {
					p[0] ^= 1
				}
				return nil
			}
		}, state.ErrDamaged, blocks * 2 * quiet},
		"silent": {func(ctx context.Context) func(int64, []byte) error {
			return func(at int64, p []byte) error {
				if at > half {
					<-ctx.Done()
					return context.Cause(ctx)
				}
				return nil
			}
		}, proto.ErrSilent, blocks * 2 * quiet},
		"dead": {func(context.Context) func(int64, []byte) error {
			return func(int64, []byte) error { return errDead }
		}, errDead, quiet},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				d := of(s)
				d.Sum = &s.SHA256
				d.Sources = []Source{func(ctx context.Context, offset, length int64) (io.Reader, error) {
					var change func(int64, []byte) error
					if c.change != nil {
						change = c.change(ctx)
					}
					return holder(s, change)(ctx, offset, length)
				}}
				began := time.Now()
				var got bytes.Buffer
				stream, err := d.Stream(ctx)
				if err == nil {
					err = stream.Image(slow{&got})
				}
				if !errors.Is(err, c.want) || err == nil && !bytes.Equal(got.Bytes(), s.Image) {
					t.Errorf("%d of %d bytes, %v", got.Len(), len(s.Image), err)
				}
				if took := time.Since(began); took > c.took+2*quiet {
					t.Errorf("it took %v", took)
				}
			})
		})
	}
}

// A source that gives each block just in time is given up for the sum of them. What the reader takes its time for is
// not counted.
func TestASlowSourceIsGivenUp(t *testing.T) {
	s := sealed(t)
	trickle := holder(s, func(int64, []byte) error {
		time.Sleep(quiet / 5) // virtual: four times a block
		return nil
	})
	for pace, want := range map[time.Duration]error{0: nil, quiet / 2: proto.ErrSlow, quiet: nil} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			d := of(s)
			d.Pace, d.Sources = pace, []Source{trickle}
			began := time.Now()
			stream, err := d.Stream(ctx)
			if err == nil {
				err = stream.Image(io.Discard)
			}
			if took := time.Since(began); !errors.Is(err, want) || want != nil && took > 5*quiet {
				t.Errorf("a block in %v: %v after %v", pace, err, took)
			}
			_, err = d.Run(ctx)
			if !errors.Is(err, want) {
				t.Errorf("a block in %v, in memory: %v", pace, err)
			}
			d.Sources = []Source{holder(s, nil)}
			if stream, err = d.Stream(ctx); err == nil {
				err = stream.Image(slow{io.Discard})
			}
			if err != nil {
				t.Errorf("a block in %v, and a slow reader: %v", pace, err)
			}
		})
	}
}

// slow takes longer for a block than a source may be silent.
type slow struct{ io.Writer }

func (s slow) Write(p []byte) (int, error) {
	time.Sleep(2 * quiet) // virtual
	return s.Writer.Write(p)
}
