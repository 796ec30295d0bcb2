// Package transfer moves states between processes, in blocks that are verified one by one as they arrive: from several
// processes at once, and past those that die, are slow or send damaged blocks. What has arrived is passed on at once.
//
//	download.go  Download: a state, from several sources
//	assembly.go  Assembly: a state of which some blocks have arrived
//	stream.go    Download.Stream: a state that is passed on, from one source
//	source.go    Source: where bytes of a state come from
package transfer

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	requestBlocks = 16 // that a source is asked for at a time
	repeatBlocks  = 2  // likewise, if another source was asked for them and has not sent them yet
	retryPause    = 50 * time.Millisecond
	reserveAfter  = 3                // the reserve is asked after a third of Quiet without a block
	signsCount    = 10 * time.Minute // for so long a source's signs of life count as progress: it copies its state
)

// Download fetches a state in memory. Its deadlines are of progress: how long no block may arrive, and how many must.
type Download struct {
	Layout  *state.Layout
	Samples int                // that it was trained on
	Step    int64              // that it must be of
	Sum     *[sha256.Size]byte // that it must have; nil: any
	Quick   bool               // hashes by XXH3 will do: the caller compares the fingerprint; no Sum then
	Head    []Source           // give the head; empty: Sources do
	Sources []Source           // all are asked at once
	Reserve []Source           // asked when the others have sent nothing for a while
	Quiet   time.Duration
	Pace    time.Duration    // that a block may take on average, beside one Quiet for all of them; 0: any
	Block   []byte           // memory that Stream reads a block into; nil: it allocates it
	Image   []byte           // memory for the state, which is Run's from then on; nil: it allocates it
	Resume  *Assembly        // an earlier attempt, whose blocks are kept if it is the same state; may be nil
	Began   func(*Assembly)  // called when the head is there; may be nil
	Arrived func(blocks int) // called when blocks, or a sign of life, have arrived: how many there are; may be nil
	Gone    func(error) bool // whether an error says that a source lacks the state: it is not asked again; may be nil
}

// Run fetches the state. The error of a download without progress wraps that of the last try.
func (d Download) Run(ctx context.Context) (*state.Sealed, error) {
	r := &run{Download: d, claims: map[int]int{}, began: time.Now()}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	r.watch, r.complete = proto.NewWatch(ctx, cancel, d.Quiet, d.Pace), func() { cancel(nil) }
	r.watch.Wait(true)
	if err := r.begin(ctx); err != nil || r.assembly == nil {
		return nil, r.explain(ctx, err)
	}
	var asking sync.WaitGroup
	for i, from := range append(d.Sources[:len(d.Sources):len(d.Sources)], d.Reserve...) {
		asking.Go(func() {
			if i >= len(d.Sources) && !r.needsReserve(ctx) {
				return
			}
			if err := r.ask(ctx, from); err != nil {
				r.failed(err)
			}
		})
	}
	asking.Wait()
	if r.assembly.Missing() > 0 {
		return nil, r.explain(ctx, r.failure())
	}
	return r.assembly.Whole(), nil
}

// run is a download in progress.
type run struct {
	Download
	assembly *Assembly
	watch    *proto.Watch
	complete func() // ends what is still asked of sources
	began    time.Time

	mu     sync.Mutex
	claims map[int]int // by block: how many sources were asked for it and have not failed
	last   error
}

// begin gets the head, from the first source that gives it.
func (r *run) begin(ctx context.Context) error {
	from := r.Head
	if len(from) == 0 {
		from = r.Sources
	}
	from = slices.Clone(from)
	for {
		for i := 0; i < len(from); i++ {
			head, err := r.head(ctx, from[i])
			if err == nil {
				r.take(head)
				return nil
			}
			if r.failed(err); r.final(err) {
				from = slices.Delete(from, i, i+1)
				i--
			}
		}
		if len(from) == 0 || !pause(ctx, retryPause) {
			return r.failure()
		}
	}
}

// final says whether the source of an error is not asked again.
func (d Download) final(err error) bool {
	return errors.Is(err, state.ErrDamaged) || d.Gone != nil && d.Gone(err)
}

func (r *run) take(head *state.Head) {
	r.watch.Arrived()
	if r.assembly = r.Resume; r.assembly == nil || r.assembly.SHA256 != head.SHA256 {
		r.assembly = newAssembly(head, r.Image)
	}
	if r.Began != nil {
		r.Began(r.assembly)
	}
}

func (r *run) head(ctx context.Context, from Source) (*state.Head, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b, err := from(ctx, 0, r.Layout.HeadSize(r.Samples))
	if err != nil {
		return nil, err
	}
	return r.readHead(signs{b, r})
}

// signs reads from a source, and counts its signs of life, which are reads of no bytes, as progress.
type signs struct {
	io.Reader
	r *run
}

func (s signs) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	if n == 0 && err == nil && time.Since(s.r.began) < signsCount {
		s.r.watch.Sign()
		s.r.progress()
	}
	return n, err
}

func (r *run) progress() {
	if r.Arrived == nil {
		return
	}
	blocks := 0
	if a := r.assembly; a != nil {
		blocks = a.Blocks() - a.Missing()
	}
	r.Arrived(blocks)
}

func (d Download) readHead(b io.Reader) (*state.Head, error) {
	var h *state.Head
	var err error
	if d.Quick {
		h, err = state.ReadQuickHead(b, d.Layout, d.Samples)
	} else {
		h, err = state.ReadHead(b, d.Layout, d.Samples, d.Sum)
	}
	if err == nil && h.Step != d.Step {
		err = fmt.Errorf("asked for the state of step %d, got step %d", d.Step, h.Step)
	}
	return h, err
}

// ask asks one source for blocks until none is missing. The error says why the source is given up.
func (r *run) ask(ctx context.Context, from Source) error {
	block := make([]byte, min(r.Layout.Size, state.BlockSize))
	for {
		first, n, grown := r.claim()
		if r.assembly.Missing() == 0 {
			r.complete()
			return nil
		}
		if n == 0 {
			select {
			case <-grown:
			case <-time.After(retryPause):
			case <-ctx.Done():
				return nil
			}
			continue
		}
		err := r.receive(ctx, from, first, n, block)
		r.release(first, n)
		if err != nil && r.final(err) {
			return err
		}
		if err != nil {
			r.failed(err)
			if !pause(ctx, retryPause) {
				return nil
			}
		}
	}
}

// claim chooses blocks to ask for: the first that no source was asked for, or else the last that one was asked for.
func (r *run) claim() (first, n int, grown <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.assembly.mu.Lock()
	defer r.assembly.mu.Unlock()
	open := func(i, claims int) bool { return !r.assembly.have[i] && r.claims[i] == claims }
	blocks := r.assembly.Blocks()
	for first < blocks && !open(first, 0) {
		first++
	}
	for n < requestBlocks && first+n < blocks && open(first+n, 0) {
		n++
	}
	if n == 0 {
		for first = blocks; first > 0 && !open(first-1, 1); {
			first--
		}
		for n < repeatBlocks && first > 0 && open(first-1, 1) {
			first, n = first-1, n+1
		}
	}
	for i := range n {
		r.claims[first+i]++
	}
	return first, n, r.assembly.grown
}

func (r *run) release(first, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range n {
		r.claims[first+i]--
	}
}

// receive reads some blocks from a source.
func (r *run) receive(ctx context.Context, from Source, first, n int, buffer []byte) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	a := r.assembly
	lo, _ := a.Range(first)
	_, hi := a.Range(first + n - 1)
	source, err := from(ctx, int64(len(a.Bytes))+lo, hi-lo)
	b := signs{source, r}
	for i := first; err == nil && i < first+n; i++ {
		at, end := a.Range(i)
		if err = a.ReadBlock(b, i, buffer[:end-at]); err == nil && a.put(i, buffer) {
			r.watch.Arrived()
			r.progress()
		}
	}
	if err != nil && a.Missing() == 0 { // another source has sent the rest
		return nil
	}
	return err
}

// needsReserve waits until the other sources have sent nothing for a while, and reports whether blocks are missing
// then.
func (r *run) needsReserve(ctx context.Context) bool {
	for missing := r.assembly.Missing(); missing > 0; {
		if !pause(ctx, r.Quiet/reserveAfter) {
			return false
		}
		before := missing
		if missing = r.assembly.Missing(); missing == before {
			return true
		}
	}
	return false
}

func (r *run) failed(err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !errors.Is(err, context.Canceled) && !errors.Is(err, proto.ErrSilent) && !errors.Is(err, proto.ErrSlow) {
		r.last = err
	}
}

func (r *run) failure() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last
}

// explain says why a download ended without the state.
func (r *run) explain(ctx context.Context, err error) error {
	cause := context.Cause(ctx)
	if last := r.failure(); last != nil {
		err = last
	}
	if r.assembly != nil && cause != nil {
		cause = fmt.Errorf("%w; %d of %d blocks are missing", cause, r.assembly.Missing(), r.assembly.Blocks())
	}
	switch {
	case cause == nil:
		return err
	case err == nil:
		return cause
	}
	return fmt.Errorf("%w: %w", cause, err)
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
