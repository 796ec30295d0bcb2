package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"time"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
	"evenweave/proto"
)

// generation is one stretch of training with a fixed world. Owned by the loop.
type generation struct {
	world      job.World
	rank       int
	ring       Collective
	replica    *replica
	sampler    *schedule.Sampler
	data       evenweave.Data
	names      names
	assignment schedule.Assignment
	buffer     *buffer
	lanes      []*lane
	flatMean   []float32
	mean       [][]float32 // flatMean, cut into tensors
	exponents  []int32     // of the step in progress
	samples    []int32
	stepTimes  *stepTimes
	report     *report
	observer   Observer
	fetch      fetcher
	newer      func() bool   // a newer world has been published
	leader     func() string // address of the coordinator
	log        *slog.Logger
	sealing    *sync.WaitGroup

	catching  *catchUp  // with which this member has caught up; nil: none
	caught    int64     // how many of its parts have arrived
	moved     time.Time // when caught last rose
	advancing time.Time // since when the world waits for steps that this member lacks
	fetching  *fetching // a state, while the ranks go on with their exchanges; nil: none
	opened    bool      // all ranks had one state once
	restored  int64     // step of the checkpoint that this opening has loaded; -1: none
	furthest  int64     // step that ranks have reported
	exchanges int       // exchanges since then
}

// maxExchanges bounds the exchanges without progress. A replay takes two.
const maxExchanges = 10

// train runs until the generation ends. nil: a planned change, or nothing is left to compute (then holding is true).
func (g *generation) train(ctx context.Context) (holding bool, err error) {
	total := g.replica.job.Spec.TotalSteps()
	for {
		if err := g.open(ctx); err != nil {
			return false, err
		}
		if g.replica.step >= total || g.world.Halt {
			return true, nil
		}
		// At the end the ranks exchange once more: no step has compared the result of the last update.
		for g.replica.step < total {
			c, err := g.step(ctx)
			if errors.Is(err, errDiverged) {
				g.log.Error("replicas differ: comparing", "step", g.replica.step)
				break
			}
			if err != nil {
				return false, err
			}
			if g.reportCommit(c); c.changing {
				return false, nil
			}
		}
	}
}

// open makes all ranks agree on one state: each reports its (step, fingerprint), and policy.Choose chooses one. A
// member with another state, or none, fetches the chosen one from a peer. If none is chosen, all load the coordinator's
// checkpoint. They repeat this until one exchange shows agreement. After too many exchanges without progress, a member
// that others outvote or that cannot keep a state is unfit, and a tie is a verdict.
func (g *generation) open(ctx context.Context) error {
	defer g.stopFetching()
	g.restored = -1
	if !g.opened {
		if agreed, err := g.claim(ctx); agreed || err != nil {
			return err
		}
	}
	var fetches policy.Fetches
	for {
		slots, err := g.known()
		if err != nil {
			return err
		}
		known := slots[policy.SlotWords*g.rank] > 0
		exchange, choice, err := g.exchange(ctx, slots)
		if err != nil {
			return err
		}
		// A member that fetches gives up by itself after half of this time.
		limit := 2 * g.deadlines().Fetch
		if r := fetches.Stalled(exchange, choice.Step, g.rank, time.Now(), limit); r >= 0 {
			id := g.world.Peers[r].ID
			return &blamed{suspect: id, kind: policy.KindProtocol, err: fmt.Errorf("%s (rank %d) says that it fetches "+
				"the state of step %d, and has had no block more for %v", id, r, choice.Step, limit)}
		}
		stuck := !exchange.Fetching() && g.exchanged(slots)
		switch {
		case choice.Agreed:
			return g.agree(choice)
		case exchange.Fetching() && g.fetching == nil && len(choice.Holders) == 0 && g.restored == choice.Step:
			continue // the others are still loading that checkpoint
		case choice.Has(g.rank) && !g.endless(): // the next exchange waits for the members that fetch
			continue
		case choice.Has(g.rank):
			return g.disagrees(choice)
		case stuck && known && len(choice.Holders) == 0:
			return &Verdict{fmt.Sprintf("step %d: replicas differ, after %d replays too: %s; one of these machines "+
				"computes other bits, by its processor, memory or plug-in; the checkpoints are sound: "+
				"start again without it, on the same directory, with an empty etcd (`evenweave train` keeps its own "+
				"there) or another --job", g.furthest, maxExchanges/2, differences(slots, g.world))}
		case stuck:
			return &Unfit{fmt.Sprintf("member %s (rank %d) is unfit: after %d exchanges it has no state that agrees "+
				"with its peers': %s; check this machine's memory, processor and plug-in",
				g.world.Peers[g.rank].ID, g.rank, maxExchanges, differences(slots, g.world))}
		}
		took := g.advance(choice)
		if g.replica.proves(choice) || took { // a step may have led to the chosen state
			continue
		}
		if err := g.obtain(ctx, choice, slots); err != nil {
			return err
		}
	}
}

// claim is the first exchange of a world. It decides only whether all ranks have one state already, by the fingerprints
// that their last steps have just left; a spare that has caught up takes part in it. So states are not hashed twice
// between two steps. A bit that flips meanwhile is found by the world's first step, before its sum is used, as in any
// other step. Where none follows, the ranks go on to exchange what they hash.
func (g *generation) claim(ctx context.Context) (agreed bool, err error) {
	g.takeLast()
	slots, err := g.claims()
	if err != nil {
		return false, err
	}
	exchange, choice, err := g.exchange(ctx, slots)
	if err != nil || !choice.Agreed || g.world.Halt || choice.Step >= exchange.Total {
		return false, err
	}
	return true, g.agree(choice)
}

// claims are this rank's slots of the first exchange. One that has yet to copy a due state says that it has none: the
// state is hashed before it is copied.
func (g *generation) claims() ([]int64, error) {
	r, slots := g.replica, make([]int64, policy.SlotWords*g.world.Size())
	mine := slots[policy.SlotWords*g.rank:]
	mine[3] = r.durableStep()
	if !r.known || r.lacksDue() {
		return slots, nil
	}
	fingerprint, hashed := r.expected, r.hashed
	if r.hashed = false; !hashed {
		var err error
		if fingerprint, err = r.fingerprint(); err != nil {
			return nil, err
		}
	}
	if fingerprint == r.expected {
		if r.claim(mine); r.unproved {
			mine[4] = policy.Unproved
		}
	}
	return slots, nil
}

// exchange sums the slots of all ranks, and chooses a state by them.
func (g *generation) exchange(ctx context.Context, slots []int64) (policy.Exchange, policy.Choice, error) {
	exchange := policy.Exchange{Slots: slots, DurableStep: g.world.DurableStep, Total: g.replica.job.Spec.TotalSteps()}
	if !g.opened { // after that all have proved their states: none is fresh
		exchange.Fresh = g.world.FreshRanks()
	}
	g.report.phase(phaseOpen)
	if err := g.sum(ctx, opening, slots, g.deadlines().Open); err != nil {
		return exchange, policy.Choice{}, err
	}
	g.report.advanced() // the ranks may wait long for one that fetches
	choice := policy.Choose(exchange)
	for _, r := range choice.Void {
		g.log.Warn("a member reports a step outside the schedule: void", "member", g.world.Peers[r].ID, "word",
			slots[policy.SlotWords*r])
	}
	return exchange, choice, nil
}

// agree goes on from the state that all ranks have.
func (g *generation) agree(choice policy.Choice) error {
	g.catching.stop()
	g.catching, g.opened, g.replica.unproved = nil, true, false
	g.replica.keepDue(g.sealing)
	if g.replica.verify(state.Fingerprint(choice.Fingerprint), g.world.Generation) {
		g.reportDue()
	}
	step, epochs, used := g.replica.progress()
	g.log.Info("all ranks hold one state", "step", step)
	g.report.set(func(s *proto.Status) {
		s.Step, s.Ledger, s.Agreed = step, g.ledger(epochs, used), g.world.Generation
	})
	if g.replica.partial.Swap(nil) != nil && g.replica.layout.Size >= state.Large {
		g.sealing.Go(debug.FreeOSMemory) // the fetched image is as large as the state
	}
	return nil
}

// known returns this rank's slots of an exchange: no state if the state has changed by itself.
func (g *generation) known() ([]int64, error) {
	slots := make([]int64, policy.SlotWords*g.world.Size())
	mine := slots[policy.SlotWords*g.rank:]
	mine[3] = g.replica.durableStep()
	if up, r := g.catching, g.replica; up != nil && !g.moved.IsZero() && r.known && r.unproved {
		mine[4] = 1 + up.parts.Load()
	}
	if f := g.fetching; f != nil {
		mine[4] = 1 + g.caught + f.arrivals.Load() // never less than before in this opening
		if f.restoring {                           // its state will be replaced, whatever the others have done already
			return slots, nil
		}
	}
	if r := g.replica; r.counts() {
		fingerprint, err := r.fingerprint()
		if err != nil {
			return nil, err
		}
		if fingerprint == r.expected {
			r.claim(mine)
		} else {
			r.invalidate()
		}
	}
	return slots, nil
}

// exchanged counts the exchanges, equally on each rank, and reports whether there were too many without progress. A
// step that only one rank of three or more reports is no progress.
func (g *generation) exchanged(slots []int64) (stuck bool) {
	var steps []int64
	for r := 0; r < len(slots); r += policy.SlotWords {
		if w := slots[r]; w > 0 && w-1 <= g.replica.job.Spec.TotalSteps() {
			steps = append(steps, w-1)
		}
	}
	slices.Sort(steps)
	if n := len(steps); n > 0 {
		if step := steps[max(0, n-1-min(n, 3)/3)]; step > g.furthest {
			g.furthest, g.exchanges = step, 0
		}
	}
	g.exchanges++
	return g.exchanges > maxExchanges
}

// endless reports whether a member that should have ended as unfit still takes part.
func (g *generation) endless() bool { return g.exchanges > 2*maxExchanges }

func (g *generation) disagrees(c policy.Choice) error {
	for r, p := range g.world.Peers {
		if !c.Has(r) {
			return &blamed{suspect: p.ID, kind: policy.KindProtocol, err: fmt.Errorf("%s (rank %d) still has "+
				"another state than %d of %d after %d exchanges", p.ID, r, len(c.Holders), g.world.Size(), g.exchanges)}
		}
	}
	return nil
}

// differences lists what each member reported.
func differences(slots []int64, w job.World) string {
	all := make([]string, w.Size())
	for rank, p := range w.Peers {
		all[rank] = fmt.Sprintf("%s (rank %d) has no state", p.ID, rank)
		if s := slots[policy.SlotWords*rank:]; s[0] > 0 {
			all[rank] = fmt.Sprintf("%s (rank %d) has fingerprint %s after step %d",
				p.ID, rank, state.Fingerprint{Hi: s[1], Lo: s[2]}, s[0]-1)
		}
	}
	return strings.Join(all, ", ")
}

// Unfit ends a member, not the job.
type Unfit struct{ message string }

func (u *Unfit) Error() string { return u.message }

// healed reports that this member's state was damaged and is replaced.
func (g *generation) healed(by string) {
	what := "had another state than its peers"
	if g.replica.broken {
		what = "found its state changed in memory"
	}
	detail := fmt.Sprintf("member %s (rank %d) %s after step %d: replaced by %s", g.world.Peers[g.rank].ID, g.rank,
		what, g.replica.step, by)
	g.log.Error("healed", "detail", detail)
	g.observer.Healed()
	g.report.event("healed", detail)
	g.report.set(func(s *proto.Status) { s.Heals++; s.Heal = detail })
}

// opening is the step of an exchange of (step, fingerprint), in which the ranks' own steps may differ.
const opening = -1

func (g *generation) deadlines() policy.Deadlines { return g.stepTimes.deadlines(g.world.Backoff) }

// sum runs one collective under a deadline; step must be equal on all ranks.
func (g *generation) sum(ctx context.Context, step int64, words []int64, deadline time.Duration) error {
	ctx, cancel := context.WithTimeoutCause(ctx, deadline, errDeadline)
	defer cancel()
	reported := make(chan struct{})
	asking := time.AfterFunc(g.deadlines().Suspect, func() {
		defer close(reported)
		g.waits(&proto.Accusation{Generation: g.world.Generation, Kind: policy.KindWaiting, Step: step})
	})
	err := g.ring.Sum(ctx, step, words)
	if !asking.Stop() {
		<-reported
		g.waits(nil)
	}
	return err
}

// waits reports that a collective takes long, so that the coordinator probes the others; nil: it is over.
func (g *generation) waits(a *proto.Accusation) {
	g.report.set(func(s *proto.Status) { s.Accusation = a })
}

var errDeadline = errors.New("the deadline of this collective has passed")

func (g *generation) reportCommit(c commit) {
	r := g.replica
	if c.verified {
		g.reportDue()
	}
	step, epochs, used := r.progress()
	assignment := make([]int32, len(c.assignment))
	for i, n := range c.assignment {
		assignment[i] = int32(n)
	}
	commit := &proto.Commit{
		Step: step, Epoch: c.epoch, Generation: g.world.Generation, Workers: int32(g.world.Size()), Loss: c.loss,
		Metrics: c.metrics, Samples: c.samples, TimeNanos: time.Now().UnixNano(), ComputeNanos: c.compute.Nanoseconds(),
		ReduceNanos: c.reduce.Nanoseconds(),
		WaitNanos:   c.wait.Nanoseconds(), UpdateNanos: c.update.Nanoseconds(), Assignment: assignment,
		Skipped: c.skipped,
	}
	g.report.commit(commit, g.ledger(epochs, used))
	g.report.progressed(trainingLimit * g.deadlines().Step)
	g.observer.Committed(commit, 2*8*len(g.buffer.words)*(g.world.Size()-1)/g.world.Size())
}

// reportDue reports due states once they are hashed; the steps go on meanwhile.
func (g *generation) reportDue() {
	g.sealing.Go(func() {
		g.replica.seal()
		if err := g.replica.refusals(); err != nil {
			g.log.Error("a due state cannot be offered", "err", err)
			g.report.event("due state refused", err.Error())
		}
		g.report.due(g.replica.due)
	})
}

func (g *generation) ledger(epochs int64, used int) *proto.Ledger {
	return &proto.Ledger{Epoch: epochs, Used: int64(used), Samples: int64(g.replica.job.Spec.Samples)}
}

// blamed is an error outside the ring that a certain member caused.
type blamed struct {
	suspect string
	kind    string
	err     error
}

func (b *blamed) Error() string { return b.err.Error() }
func (b *blamed) Unwrap() error { return b.err }
