package allreduce

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// How a ring ends: by its first error, which breaks both links and names the edge on which this member waited, or by
// Close.

// edge describes the running wait, or one of the given operation. r.mu is held.
func (r *Ring) edge(op string) Edge {
	e := Edge{Op: op, Rank: r.cfg.Rank, Peer: -1, Generation: r.cfg.Generation, Step: r.place.step}
	if op == "" && !r.running {
		e.Op = "idle"
	} else if op == "" && r.place.sending {
		e.Op = "send"
	} else if op == "" {
		e.Op = "receive"
	}
	sender := r.cfg.Rank
	switch e.Op {
	case "send":
		e.Peer = r.cfg.right()
	case "receive":
		e.Peer, sender = r.cfg.left(), r.cfg.left()
	}
	if e.Peer >= 0 {
		e.PeerID = r.cfg.member(e.Peer)
	}
	if p := r.place.plan; r.running && p.size > 1 {
		hop := p.hop(r.place.frame)
		e.Phase = "reduce-scatter"
		if hop > p.size-2 {
			e.Phase = "all-gather"
		}
		e.Chunk = p.chunk(sender, hop)
		e.Segment = r.place.frame/(p.hops()*p.segments)*p.segments + r.place.frame%p.segments
		e.Waited = time.Since(r.place.since)
	}
	return e
}

// fail poisons the ring with its first error, breaks both links, and returns that error. op names the link that failed;
// "" means the one that the Sum waits on.
func (r *Ring) fail(op string, kind Kind, cause error) error {
	r.mu.Lock()
	if r.err != nil || r.closed {
		defer r.mu.Unlock()
		if r.err == nil {
			return &Error{Kind: Aborted, Edge: r.edge(op), Err: errors.New("the ring was closed")}
		}
		return r.err
	}
	err := &Error{Kind: kind, Edge: r.edge(op), Err: cause}
	r.err = err
	close(r.over)
	r.mu.Unlock()
	var peer *PeerAbort
	if errors.As(cause, &peer) { // Pass on the first cause, not the chain of members that relayed it.
		r.breakLinks(errors.New(peer.Cause))
	} else {
		r.breakLinks(err)
	}
	return err
}

func (r *Ring) breakLinks(cause error) {
	if r.left != nil {
		r.left.Abort(cause)
	}
	if r.right != nil {
		r.right.Abort(cause)
	}
}

// Err returns why the ring is poisoned; nil if it is not.
func (r *Ring) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.err
}

// Done is closed when the ring is poisoned or closed, also between Sums.
func (r *Ring) Done() <-chan struct{} { return r.over }

// Abort poisons the ring: a running Sum returns, and both neighbours learn it at once.
func (r *Ring) Abort(cause error) { _ = r.fail("", Aborted, cause) }

// Close ends the ring in good order, between Sums. It returns when the right neighbour has acknowledged every frame, so
// that the process may exit. If ctx ends first, it breaks the links and returns an error.
func (r *Ring) Close(ctx context.Context) error {
	r.mu.Lock()
	if r.running {
		r.mu.Unlock()
		return r.fail("", Aborted, errors.New("Close was called while a Sum runs"))
	}
	if r.err != nil || r.closed {
		defer r.mu.Unlock()
		return r.err
	}
	r.closed = true
	close(r.over)
	r.mu.Unlock()
	if r.cfg.Size == 1 {
		return nil
	}
	err := r.right.Close(ctx)
	if err = errors.Join(err, r.left.Close(ctx)); err != nil {
		err = fmt.Errorf("allreduce: generation %d: rank %d closing towards rank %d (%s): %w",
			r.cfg.Generation, r.cfg.Rank, r.cfg.right(), r.cfg.member(r.cfg.right()), err)
		r.breakLinks(err)
	}
	r.watchers.Wait()
	return err
}

// watchDeadline breaks the ring when the context of a running Sum ends. One goroutine serves all Sums, so that a Sum
// allocates nothing.
func (r *Ring) watchDeadline() {
	for {
		var ctx context.Context
		select {
		case ctx = <-r.begin:
		case <-r.over:
			return
		}
		select {
		case <-r.end:
		case <-r.over:
			return
		case <-ctx.Done():
			kind := Aborted
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				kind = Deadline
			}
			_ = r.fail("", kind, context.Cause(ctx))
		}
	}
}

// watchLink breaks the ring when one of its links is broken, whether a Sum runs or not.
func (r *Ring) watchLink(link Link, op string) {
	if err := link.Wait(); err != nil {
		_ = r.fail(op, kindOf(err), err)
	}
}
