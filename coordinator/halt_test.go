package coordinator

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
	"evenweave/proto"
)

// holding gives the states of one member, and keeps them.
type holding struct {
	member string
	layout *state.Layout
}

func (h holding) fetch(_ context.Context, member, _ string, step int64, _ string) (state.Stream, error) {
	if member != h.member {
		return state.Stream{}, &unfetched{step, member, errors.New("it does not answer")}
	}
	return state.Stream{Head: &state.Head{Step: step, Layout: h.layout}}, nil
}

func (h holding) acknowledge(context.Context, string, string, int64) error { return nil }

func (h holding) write(_ context.Context, _ job.Job, _ int64, s state.Stream) (checkpoint.Entry, error) {
	return checkpoint.Entry{Step: s.Step, Manifest: checkpoint.Manifest{Step: s.Step}}, nil
}

func (h holding) prune(context.Context, int64) {}

// TestAHaltSavesWhatAnotherHolds: the world's only member dies under a halt, and b, which is not in the world, holds a
// due state that is newer than the directory's. It is saved first, if its hash is proved or all that hold it agree. No
// end waits for longer than reports are waited for.
func TestAHaltSavesWhatAnotherHolds(t *testing.T) {
	due := func(member string, generation int64) *proto.Status {
		return &proto.Status{Member: member, Generation: 1, Step: 40,
			Due: []*proto.HeldState{heldState(40, "right", generation)}}
	}
	for name, c := range map[string]struct {
		said     []*proto.Status // in world 1 [a b]
		gives    string
		step     int64 // saved
		warnings int
		wait     time.Duration
	}{
		"proved":                    {[]*proto.Status{due("a", 1), due("b", 1)}, "b", 40, 0, 0},
		"not proved":                {[]*proto.Status{due("b", 1)}, "b", 40, 1, reportWait},
		"by no member of its world": {[]*proto.Status{due("b", 7)}, "b", 0, 1, reportWait},
		"not given":                 {[]*proto.Status{due("a", 1), due("b", 1)}, "", 0, 1, reportWait},
		"nothing":                   {[]*proto.Status{{Member: "b", Generation: 1, Step: 40}}, "b", 0, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				one, events := leading(t, "a", "b")
				from := holding{member: c.gives, layout: one.dialer.layout}
				one.saver.source, one.saver.sink = from, from
				one.steps.last = 40
				<-time.After(time.Hour) // since the term began
				one.saver.busy = true
				for _, s := range c.said {
					one.says(t, s)
				}
				_, _, _, _ = one.saver.offer(time.Now())
				one.enter(2, "a")
				one.saver.busy = false
				one.members.unfollow("a")
				w := one.members.view.World
				for _, in := range []any{policy.Observed{World: w, Numerics: "n"}, policy.Halt{},
					policy.Probed{Member: "a", Outcome: policy.Refused}} {
					one.policy.Step(time.Now(), in)
				}
				one.halting = true
				began := time.Now()
				for !one.halted(t.Context()) {
					select {
					case in := <-one.inputs:
						if end, err := one.take(t.Context(), in); end || err != nil {
							t.Fatal(end, err)
						}
					case <-time.After(tickEvery):
					}
				}
				if got := one.saver.durable.Manifest.Step; got != c.step || time.Since(began) != c.wait ||
					len(events.warnings()) != c.warnings {
					t.Errorf("step %d is durable after %v, want %d after %v; warned: %q", got, time.Since(began),
						c.step, c.wait, events.warnings())
				}
				one.tasks.Wait()
			})
		})
	}
}

// TestAnotherHolderIsAskedAtOnce: one that does not give a state, as it dies, is not waited for while others have it. A
// member that has failed is asked again after a pause, whatever it said. A full disk is tried once.
func TestAnotherHolderIsAskedAtOnce(t *testing.T) {
	gone := status.Error(codes.NotFound, "gone")
	for name, c := range map[string]struct {
		gives string
		fails error
		held  bool // by what is held at the end, instead of as a due state
		step  int64
		asked int // up to the pause
	}{
		"the first":              {gives: "a", step: 30, asked: 1},
		"the second":             {gives: "b", step: 30, asked: 2},
		"the third":              {gives: "c", step: 30, asked: 3},
		"none":                   {asked: 3},
		"none has it":            {fails: gone, asked: 3},
		"none has what it holds": {fails: gone, held: true, asked: 3},
		"the second holds it":    {gives: "b", fails: gone, held: true, step: 30, asked: 2},
		"no disk":                {fails: errors.New("no space left"), asked: 1},
	} {
		synctest.Test(t, func(t *testing.T) {
			one, _ := leading(t, "a", "b", "c")
			from := &asking{holding: holding{member: c.gives, layout: one.dialer.layout}, fails: c.fails}
			one.saver.source, one.saver.sink = from, from
			one.steps.last = 40
			one.members.proofs.worlds[0].Halt = c.held
			<-time.After(time.Hour) // since the term began
			one.saver.busy = true
			for _, id := range []string{"a", "b", "c"} {
				s := &proto.Status{Member: id, Generation: 1, Step: 30, Holding: c.held}
				if of := heldState(30, "right", 1); c.held {
					s.Held = of
				} else {
					s.Due = []*proto.HeldState{of}
				}
				one.says(t, s)
			}
			one.saver.busy = false
			began := time.Now()
			one.saver.save(t.Context())
			for one.saver.durable.Manifest.Step != 30 && time.Since(began) < saveRetry {
				select {
				case in := <-one.inputs:
					if end, err := one.take(t.Context(), in); end || err != nil {
						t.Fatal(end, err)
					}
				case <-time.After(tickEvery):
					if time.Since(began) < saveRetry {
						one.saver.save(t.Context())
					}
				}
			}
			one.tasks.Wait()
			if asked := from.all(); one.saver.durable.Manifest.Step != c.step || len(asked) != c.asked ||
				c.step > 0 && time.Since(began) > 0 {
				t.Errorf("%s: step %d after %v, want %d at once; asked: %v, want %d of them", name,
					one.saver.durable.Manifest.Step, time.Since(began), c.step, asked, c.asked)
			}
		})
	}
}

// asking notes which members are asked.
type asking struct {
	holding
	fails error // how; nil: as those of holding do
	mu    sync.Mutex
	asked []string
}

func (a *asking) all() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

func (a *asking) fetch(ctx context.Context, member, address string, step int64, hash string) (state.Stream, error) {
	a.mu.Lock()
	a.asked = append(a.asked, member)
	a.mu.Unlock()
	if member != a.member && a.fails != nil {
		return state.Stream{}, a.fails
	}
	return a.holding.fetch(ctx, member, address, step, hash)
}
