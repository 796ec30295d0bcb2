package worker

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"time"

	"evenweave/allreduce/grpclink"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/schedule"
	"evenweave/internal/security"
	"evenweave/internal/serving"
)

// A Measurement is one member of a world that trains for the sake of the figures: the steps of Loop, without etcd, a
// coordinator or checkpoints. The members reach each other over Unix sockets in one directory.
type Measurement struct {
	Job         job.Job
	Rank, Size  int
	Sockets     string // the directory
	Parallelism int
	MetricNames []string
	Opened
	Log *slog.Logger
}

// Open listens for the left neighbour; when all members listen, train connects and trains, and reports each step.
func (m Measurement) Open() (train func(ctx context.Context, step func(Parts) error) error, stop func(), err error) {
	world := job.World{Job: m.Job.UUID, Generation: 1, Since: 1, Coordinator: "unix:coordinator.sock"}
	for rank := range m.Size {
		world.Peers = append(world.Peers, job.Peer{ID: fmt.Sprintf("rank-%d", rank),
			Address: fmt.Sprintf("unix:rank-%d.sock", rank)})
	}
	if world.Record, err = json.Marshal(world); err != nil {
		return nil, nil, err
	}
	self := world.Peers[m.Rank]
	over := security.For([]string{"unix:" + m.Sockets + "/etcd.sock"})
	rings := NewRings(self.ID, m.Job.UUID, over, readWorld, func(job.World) {})
	l := &Loop{ID: self.ID, Job: m.Job, Model: m.Model, Data: m.Data, MetricNames: m.MetricNames,
		Parallelism: m.Parallelism, Views: noViews{}, Connect: rings.Connect, Log: m.Log}
	if err := l.Init(); err != nil {
		return nil, nil, err
	}
	err = l.replica.install(0, schedule.NewLedger(m.Job.Spec.Samples),
		func() error { return m.Model.Init(m.Job.Spec.Seed) })
	if err != nil {
		return nil, nil, err
	}
	listener, err := over.Listen(self.Address)
	if err != nil {
		return nil, nil, err
	}
	server := serving.NewServer(m.Log, func() {}, append(over.ServerOptions(), grpclink.ServerOptions()...)...)
	rings.Server().Register(server)
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	train = func(ctx context.Context, step func(Parts) error) error {
		connecting, done := context.WithTimeout(ctx, time.Minute)
		defer done()
		ring, err := rings.Connect(connecting, world, m.Rank)
		if err != nil {
			return err
		}
		defer ring.Abort(context.Canceled)
		g := l.enter(world, m.Rank, ring, m.Log)
		if err := g.open(ctx); err != nil {
			return err
		}
		for l.replica.step < m.Job.Spec.TotalSteps() {
			c, err := g.step(ctx)
			if err == nil {
				err = step(c.parts)
			}
			if err != nil {
				return err
			}
		}
		_ = ring.Close(ctx) // a neighbour that has everything may have ended already
		return nil
	}
	return train, func() { server.Stop(); <-served }, nil
}

// readWorld reads a world that a neighbour sends.
func readWorld(record []byte) (w job.World, err error) { return w, json.Unmarshal(record, &w) }

// noViews are the records of a cluster that has none.
type noViews struct{}

func (noViews) View() (cluster.View, <-chan struct{}) { return cluster.View{}, nil }
