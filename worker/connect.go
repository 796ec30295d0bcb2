package worker

import (
	"context"
	"encoding/json"
	"errors"
	"sync"

	"evenweave/allreduce"
	"evenweave/allreduce/grpclink"
	"evenweave/job"
	"evenweave/proto"
)

// Rings connects the collectives of worlds over gRPC: one stream from the left neighbour, one to the right.
type Rings struct {
	self   string
	server *grpclink.Server
}

// NewRings prepares a member's end. learn is told of newer worlds that peers know; it must not block.
func NewRings(self string, learn func(job.World)) *Rings {
	return &Rings{self: self, server: grpclink.NewServer(func(record []byte) {
		var w job.World
		if json.Unmarshal(record, &w) == nil {
			learn(w)
		}
	})}
}

// Server is to be registered on the member's gRPC server.
func (r *Rings) Server() *grpclink.Server { return r.server }

// Connect implements the worker's Connect. The error names the neighbour that could not be reached.
func (r *Rings) Connect(ctx context.Context, w job.World, rank int) (Collective, error) {
	record, err := json.Marshal(w)
	if err != nil {
		return nil, err
	}
	r.server.SetCurrent(w.Job, w.Generation, record)
	cfg := allreduce.Config{Job: w.Job, Generation: w.Generation, Rank: rank, Size: w.Size(), Members: w.IDs()}
	if w.Size() == 1 {
		return allreduce.New[int64](cfg, nil, nil)
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
		hello := grpclink.Hello{Job: w.Job, Generation: w.Generation, From: r.self, To: w.Peers[right].ID, FromRank: rank, ToRank: right, World: record}
		if out, outErr = grpclink.Dial(ctx, w.Peers[right].Address, hello); outErr != nil {
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
			return nil, first // the other was cancelled by it
		}
		return nil, cause // the deadline: whom it was that did not come
	}
	return allreduce.New[int64](cfg, in, out)
}

// accuse turns what ended a generation into an edge of the wait-for graph.
func accuse(err error, w job.World) *proto.Accusation {
	a := &proto.Accusation{Generation: w.Generation, Kind: "other", Detail: err.Error()}
	var ring *allreduce.Error
	var other *blamed
	switch {
	case errors.As(err, &ring):
		a.Suspect, a.Phase, a.Chunk, a.WaitedNanos = ring.PeerID, ring.Op+" "+ring.Phase, int32(ring.Chunk), ring.Waited.Nanoseconds()
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
