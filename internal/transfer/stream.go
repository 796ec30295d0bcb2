package transfer

import (
	"context"
	"fmt"
	"io"

	"evenweave/internal/state"
	"evenweave/proto"
)

// Stream begins to fetch a state from the first source alone. Its image is passed on block by block, each verified
// before, so that one block is in memory; it can be read once, before ctx ends, which the caller must end.
func (d Download) Stream(ctx context.Context) (state.Stream, error) {
	s := &stream{Download: d}
	s.ctx, s.cancel = context.WithCancelCause(ctx)
	s.watch = proto.NewWatch(s.ctx, s.cancel, d.Quiet, d.Pace)
	err := s.attempt(0, func() (err error) {
		s.head, err = d.readHead(s.body)
		return err
	})
	return state.Stream{Head: s.head, Image: s.image}, err
}

// stream is a state on its way through.
type stream struct {
	Download
	ctx    context.Context
	cancel context.CancelCauseFunc
	watch  *proto.Watch
	head   *state.Head
	body   io.Reader // what follows; nil: not asked for
	stop   context.CancelFunc
}

// image passes all blocks on.
func (s *stream) image(w io.Writer) error {
	defer s.cancel(nil)
	block := s.Block
	if n := min(s.Layout.Size, state.BlockSize); int64(len(block)) < n {
		block = make([]byte, n)
	}
	for i := range s.head.Blocks() {
		first, end := s.head.Range(i)
		p := block[:end-first]
		err := s.attempt(int64(len(s.head.Bytes))+first, func() error { return s.head.ReadInOrder(s.body, i, p) })
		if err == nil {
			_, err = w.Write(p) // may take its time: a slow disk is not a silent source
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// attempt repeats a reading, from an offset of the encoding on, until it succeeds, or the source is given up.
func (s *stream) attempt(offset int64, read func() error) (err error) {
	s.watch.Wait(true)
	defer s.watch.Wait(false)
	var last error
	for {
		if err = s.ask(offset); err == nil {
			err = read()
		}
		if err == nil {
			s.watch.Arrived()
			return nil
		}
		s.body = nil
		if s.final(err) {
			return err
		}
		if last == nil || s.ctx.Err() == nil {
			last = err
		}
		if !pause(s.ctx, retryPause) {
			break
		}
	}
	return fmt.Errorf("%w: %w", context.Cause(s.ctx), last)
}

// ask asks for all from an offset on, unless that is on its way.
func (s *stream) ask(offset int64) (err error) {
	if s.body != nil {
		return nil
	}
	if s.stop != nil {
		s.stop()
	}
	var ctx context.Context
	ctx, s.stop = context.WithCancel(s.ctx)
	s.body, err = s.Sources[0](ctx, offset, 0)
	return err
}
