package coordinator

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

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
		return state.Stream{}, errors.New("it does not answer")
	}
	return state.Stream{Head: &state.Head{Step: step, Layout: h.layout}}, nil
}

func (h holding) acknowledge(context.Context, string, string, int64) error { return nil }

func (h holding) write(_ context.Context, _ job.Job, _ int64, s state.Stream) (checkpoint.Entry, error) {
	return checkpoint.Entry{Step: s.Step, Manifest: checkpoint.Manifest{Step: s.Step}}, nil
}

func (h holding) prune(context.Context) {}

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
		"not given":                 {[]*proto.Status{due("a", 1), due("b", 1)}, "", 0, 2, reportWait},
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

// TestAnotherHolderIsAskedAtOnce: one that does not give a state, as it dies, is not waited for while another
// has it. The next try comes after a pause, whatever fails.
func TestAnotherHolderIsAskedAtOnce(t *testing.T) {
	for gives, want := range map[string]struct {
		after time.Duration
		step  int64
	}{"a": {0, 30}, "b": {0, 30}, "": {saveRetry, 0}} {
		synctest.Test(t, func(t *testing.T) {
			one, _ := leading(t, "a", "b")
			from := &asking{holding: holding{member: gives, layout: one.dialer.layout}}
			one.saver.source, one.saver.sink = from, from
			one.steps.last = 40
			<-time.After(time.Hour) // since the term began
			began := time.Now()
			for _, id := range []string{"a", "b"} {
				one.says(t, &proto.Status{Member: id, Generation: 1, Step: 40,
					Due: []*proto.HeldState{heldState(30, "right", 1)}})
			}
			one.saver.save(t.Context())
			for one.saver.durable.Manifest.Step != 30 && from.times() < 3 {
				select {
				case in := <-one.inputs:
					if end, err := one.take(t.Context(), in); end || err != nil {
						t.Fatal(end, err)
					}
				case <-time.After(tickEvery):
					one.saver.save(t.Context())
				}
			}
			took := time.Since(began)
			one.tasks.Wait()
			if took < want.after || took > want.after+tickEvery || one.saver.durable.Manifest.Step != want.step {
				t.Errorf("%q gives it: step %d after %v, want %d after %v; asked: %v", gives,
					one.saver.durable.Manifest.Step, took, want.step, want.after, from.asked)
			}
		})
	}
}

// asking notes which members are asked.
type asking struct {
	holding
	mu    sync.Mutex
	asked []string
}

func (a *asking) times() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.asked)
}

func (a *asking) fetch(ctx context.Context, member, address string, step int64, hash string) (state.Stream, error) {
	a.mu.Lock()
	a.asked = append(a.asked, member)
	a.mu.Unlock()
	return a.holding.fetch(ctx, member, address, step, hash)
}
