package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"evenweave/job"
	"evenweave/proto"
	"evenweave/schedule"
	"evenweave/state"
)

// generation is one stretch of training with a fixed world. Owned by the loop.
type generation struct {
	world    job.World
	rank     int
	ring     Collective
	replica  *replica
	sampler  *schedule.Sampler
	dataset  Dataset
	deal     schedule.Deal
	buffer   *buffer
	lanes    []*lane
	mean     []float32
	samples  []int32
	patience *patience
	report   *report
	fetch    fetcher
	newer    func() bool   // a newer world has been published
	leader   func() string // address of the coordinator
	log      *slog.Logger
}

// fetcher reads a state: from a member by its address, or the checkpoint of that step from the coordinator.
type fetcher interface {
	FromPeer(ctx context.Context, address, job string, step int64) (*state.State, error)
	FromCoordinator(ctx context.Context, address, job string, step int64) (*state.State, error)
}

// train runs until the generation ends. nil: by a planned change, or because there is nothing left to compute (then holding is true).
func (g *generation) train(ctx context.Context) (holding bool, err error) {
	if err := g.open(ctx); err != nil {
		return false, err
	}
	total := g.replica.job.Spec.TotalSteps()
	for g.replica.step < total && !g.world.Halt {
		c, err := g.step(ctx)
		if errors.Is(err, errDiverged) {
			g.log.Error("replicas differ: comparing", "step", g.replica.step)
			if err := g.open(ctx); err != nil {
				return false, err
			}
			continue
		}
		if err != nil {
			return false, err
		}
		g.tell(c)
		if c.changing {
			return false, nil
		}
	}
	// Verified once more: the last update has not been compared by any step.
	if err := g.open(ctx); err != nil {
		return false, err
	}
	return true, nil
}

// open makes all ranks agree on one state: each tells its (step, fingerprint); the highest step wins, then the majority at that step.
// Who has another state, or none, fetches the winner from a peer. A tie between equal steps, and a world in which nobody has a state
// as new as the durable floor, is settled by the coordinator's checkpoint. Repeated until one exchange shows agreement.
func (g *generation) open(ctx context.Context) error {
	for {
		g.report.phase(phaseOpen)
		slots := make([]int64, 3*g.world.Size())
		mine := slots[3*g.rank:]
		if r := g.replica; r.known {
			print := r.live().Fingerprint()
			mine[0], mine[1], mine[2] = r.step+1, print.Hi, print.Lo
		}
		if err := g.sum(ctx, opening, slots, max(openDeadline, g.patience.deadline(g.world.Patience))); err != nil {
			return err
		}
		choice := choose(slots, g.world.Floor)
		if choice.agreed {
			if g.replica.verify(choice.print) {
				g.tellDue()
			}
			step, epochs, used := g.replica.progress()
			g.report.set(func(s *proto.Status) { s.Step = step; s.Ledger = g.ledger(epochs, used) })
			return nil
		}
		if choice.has(g.rank) {
			continue // the next exchange waits for those who fetch
		}
		if err := g.obtain(ctx, choice, slots); err != nil {
			return err
		}
	}
}

// choice is what an exchange of (step, fingerprint) settles; a pure function of it, so every rank settles alike.
type choice struct {
	agreed  bool
	step    int64
	print   state.Fingerprint
	holders []int // ranks that have it; empty: load the floor's checkpoint
}

func (c choice) has(rank int) bool {
	for _, h := range c.holders {
		if h == rank {
			return true
		}
	}
	return false
}

func choose(slots []int64, floor int64) choice {
	size := len(slots) / 3
	highest := int64(0)
	for r := range size {
		highest = max(highest, slots[3*r])
	}
	if highest < floor+1 {
		return choice{step: floor}
	}
	votes := map[state.Fingerprint][]int{}
	for r := range size {
		if slots[3*r] == highest {
			f := state.Fingerprint{Hi: slots[3*r+1], Lo: slots[3*r+2]}
			votes[f] = append(votes[f], r)
		}
	}
	c, tie := choice{step: highest - 1}, false
	for f, ranks := range votes {
		switch {
		case len(ranks) > len(c.holders):
			c.print, c.holders, tie = f, ranks, false
		case len(ranks) == len(c.holders):
			tie = true
		}
	}
	if tie { // nobody can say who is right: everyone replays from the last verified checkpoint
		return choice{step: floor}
	}
	c.agreed = len(c.holders) == size
	return c
}

// obtain replaces this member's state by the chosen one.
func (g *generation) obtain(ctx context.Context, c choice, slots []int64) error {
	g.report.phase(phaseFetch)
	ctx, cancel := context.WithTimeout(ctx, firstDeadline)
	defer cancel()
	if len(c.holders) == 0 {
		return g.restore(ctx, c.step)
	}
	own := slots[3*g.rank]
	// Another holder in each generation: this member may be unable to reach one of them.
	peer := g.world.Peers[c.holders[(int64(g.rank)+g.world.Generation)%int64(len(c.holders))]]
	s, err := g.fetch.FromPeer(ctx, peer.Address, g.world.Job, c.step)
	if err != nil {
		return &blamed{suspect: peer.ID, err: fmt.Errorf("state of step %d from %s: %w", c.step, peer.ID, err)}
	}
	if f := s.Fingerprint(); f != c.print {
		return &blamed{suspect: peer.ID, err: fmt.Errorf("state of step %d from %s has fingerprint %s, it announced %s", c.step, peer.ID, f, c.print)}
	}
	if own == c.step+1 {
		detail := fmt.Sprintf("member %s (rank %d) had another state at step %d than the majority (%d of %d): replaced by that of %s",
			g.world.Peers[g.rank].ID, g.rank, c.step, len(c.holders), g.world.Size(), peer.ID)
		g.log.Error("healed", "detail", detail)
		g.report.event("healed", detail)
		g.report.set(func(s *proto.Status) { s.Heals++; s.Heal = detail })
	} else {
		g.log.Info("caught up", "step", c.step, "from", peer.ID)
	}
	return g.replica.adopt(s)
}

// restore loads the checkpoint of a step from whoever leads now; a coordinator that is just coming back is waited for.
func (g *generation) restore(ctx context.Context, step int64) error {
	for {
		from := g.leader()
		g.log.Info("loading the checkpoint", "step", step, "from", from)
		s, err := g.fetch.FromCoordinator(ctx, from, g.world.Job, step)
		if err == nil {
			return g.replica.adopt(s)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("checkpoint of step %d from the coordinator at %s: %w", step, from, err)
		case <-time.After(restorePause):
		}
	}
}

// opening is the step of an exchange of (step, fingerprint), in which the ranks' own steps may differ.
const opening = -1

// sum runs one collective under a deadline; step must be equal on all ranks.
func (g *generation) sum(ctx context.Context, step int64, words []int64, deadline time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errDeadline)
	defer cancel()
	return g.ring.Sum(ctx, step, words)
}

var errDeadline = errors.New("the deadline of this collective has passed")

func (g *generation) tell(c commit) {
	r := g.replica
	if c.verified {
		g.tellDue()
	}
	step, epochs, used := r.progress()
	deal := make([]int32, len(c.deal))
	for i, n := range c.deal {
		deal[i] = int32(n)
	}
	g.report.set(func(s *proto.Status) { s.Ledger = g.ledger(epochs, used) })
	g.report.commit(&proto.Commit{
		Step: step, Epoch: c.epoch, Generation: g.world.Generation, Workers: int32(g.world.Size()), Loss: c.loss, Accuracy: c.accuracy,
		Samples: c.samples, TimeNanos: time.Now().UnixNano(), ComputeNanos: c.compute.Nanoseconds(), ReduceNanos: c.reduce.Nanoseconds(),
		WaitNanos: c.wait.Nanoseconds(), UpdateNanos: c.update.Nanoseconds(), Deal: deal,
	})
}

func (g *generation) tellDue() {
	due := g.replica.due()
	g.report.set(func(s *proto.Status) { s.Due = due })
}

func (g *generation) ledger(epochs int64, used int) *proto.Ledger {
	return &proto.Ledger{Epoch: epochs, Used: int64(used), Samples: int64(g.replica.job.Spec.Samples)}
}

// blamed is an error outside the ring that a certain member caused.
type blamed struct {
	suspect string
	err     error
}

func (b *blamed) Error() string { return b.err.Error() }
func (b *blamed) Unwrap() error { return b.err }
