package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"evenweave/allreduce"
	"evenweave/allreduce/grpclink"
	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/proto"
)

// Rings connects the collectives of worlds over gRPC: one stream from the left neighbour, one to the right.
type Rings struct {
	self, job string
	open      func(record []byte) (job.World, error) // a world as the coordinator has published it
	learn     func(record []byte)                    // the record of a newer world that a neighbour has sent
	over      *security.Transport
	server    *grpclink.Server
	world     atomic.Pointer[job.World] // the one that was connected last
}

// NewRings prepares a member's end for a job. open reads and verifies the record of a world; learn gets newer worlds
// from peers. Neither may block.
func NewRings(self, jobUUID string, over *security.Transport, open func([]byte) (job.World, error),
	learn func(job.World)) *Rings {
	r := &Rings{self: self, job: jobUUID, open: open, over: over, learn: func(record []byte) {
		if w, err := open(record); err == nil {
			learn(w)
		}
	}}
	r.server = grpclink.NewServer(r.check, r.learn)
	return r
}

// check returns why a Hello is refused, before anything in it is used: it must come from this member's left neighbour
// in a valid world of its generation. Any caller may get the error.
func (r *Rings) check(ctx context.Context, h grpclink.Hello) error {
	switch {
	case h.Job != r.job:
		return errors.New("this member works on another job")
	case h.To != r.self && h.From == r.self:
		return fmt.Errorf("%s dialled itself: the address that %s advertises leads back to the caller; start %s "+
			"with another --advertise", h.From, h.To, h.To)
	case h.To != r.self:
		return errors.New("another member than the one dialled answers here: two of them advertise one address; " +
			"give each its own with --advertise")
	}
	w, err := r.open(h.World)
	if err != nil {
		return fmt.Errorf("the hello's world cannot be used: %w", err)
	}
	if w.Job != h.Job || w.Generation != h.Generation {
		return errors.New("the hello's world is of another job or generation than the hello")
	}
	if known := r.world.Load(); known != nil && known.Generation == w.Generation {
		w = *known
	}
	if from, to := w.Rank(h.From), w.Rank(h.To); from < 0 || to != (from+1)%w.Size() || h.FromRank != from ||
		h.ToRank != to {
		return errors.New("by the world of this generation the caller is not this member's left neighbour")
	}
	return r.over.CheckCaller(ctx, w.Keys[h.From])
}

// Server must be registered on the member's gRPC server.
func (r *Rings) Server() *grpclink.Server { return r.server }

// Connect implements the worker's Connect. The error names the neighbour that could not be reached.
func (r *Rings) Connect(ctx context.Context, w job.World, rank int) (Collective, error) {
	record := w.Record
	if record == nil {
		return nil, errors.New("a world without its record cannot be connected")
	}
	if keys := r.over.Keys(); keys != nil {
		keys.Use(w.Keys[r.self])
	}
	r.world.Store(&w)
	r.server.SetCurrent(w.Job, w.Generation, record)
	cfg := allreduce.Config{Job: w.Job, Generation: w.Generation, Rank: rank, Size: w.Size(), Members: w.IDs()}
	if w.Size() == 1 {
		return allreduce.New(cfg, nil, nil)
	}
	left, right := (rank+w.Size()-1)%w.Size(), (rank+1)%w.Size()
	var (
		in      allreduce.Receiver
		out     allreduce.Sender
		inErr   error
		outErr  error
		pending sync.WaitGroup
	)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	pending.Go(func() {
		if in, inErr = r.server.Accept(ctx, w.Job, w.Generation, w.Peers[left].ID); inErr != nil {
			cancel(inErr)
		}
	})
	pending.Go(func() {
		hello := grpclink.Hello{Job: w.Job, Generation: w.Generation, From: r.self, To: w.Peers[right].ID,
			FromRank: rank, ToRank: right, World: record}
		dialer := grpclink.Dialer{Connect: r.over.Dial, Refused: security.Refused,
			Credentials: r.over.Credentials(security.Worker), Options: r.over.ExpectKeys(w.Keys[w.Peers[right].ID])}
		if out, outErr = dialer.Dial(ctx, w.Peers[right].Address, hello); outErr != nil {
			if stale := (*grpclink.Stale)(nil); errors.As(outErr, &stale) {
				r.learn(stale.World)
			}
			cancel(outErr)
		}
	})
	pending.Wait()
	if cause := errors.Join(inErr, outErr); cause != nil {
		if in != nil {
			in.Abort(cause)
		}
		if out != nil {
			out.Abort(cause)
		}
		var named *allreduce.Error
		if first := context.Cause(ctx); errors.As(first, &named) {
			return nil, first // it cancelled the other
		}
		return nil, cause // the deadline: the neighbour that did not come
	}
	return allreduce.New(cfg, in, out)
}

// accuse turns the error that ended a generation into an edge of the wait-for graph.
func accuse(err error, w job.World) *proto.Accusation {
	a := &proto.Accusation{Generation: w.Generation, Kind: "other", Detail: err.Error()}
	var ring *allreduce.Error
	var other *blamed
	switch {
	case errors.As(err, &ring):
		a.Suspect, a.Phase, a.Chunk, a.WaitedNanos = ring.PeerID, ring.Op+" "+ring.Phase, int32(ring.Chunk),
			ring.Waited.Nanoseconds()
		switch ring.Kind {
		case allreduce.Broken:
			a.Kind = "broken"
		case allreduce.Deadline:
			a.Kind = "deadline"
		case allreduce.Protocol:
			a.Kind = "protocol"
		case allreduce.Relayed:
			a.Kind = "relayed"
		case allreduce.Aborted:
			a.Kind = "aborted"
		}
		if (ring.Op == "connect" || ring.Op == "accept") && ring.Kind != allreduce.Protocol {
			a.Kind = "unreachable"
		}
	case errors.As(err, &other):
		a.Suspect, a.Phase, a.Kind = other.suspect, phaseFetch, other.kind
	}
	return a
}
