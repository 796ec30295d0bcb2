package policy

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"evenweave/internal/job"
)

// FuzzPolicy feeds any inputs in any order: no panic, never two transactions in progress, generations rise by one,
// worlds are within the limits, and no standing of gone members stays.
func FuzzPolicy(f *testing.F) {
	f.Add([]byte("\x00\x11\x22join and settle"), byte(0x21))
	f.Add([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"), byte(0x12))
	f.Fuzz(func(t *testing.T, script []byte, shape byte) {
		limits := Limits{Min: int(shape & 3), Max: int(shape >> 4 & 7), Expect: int(shape & 12 >> 2),
			ExpectFor: 3 * time.Second, TTL: 2 * time.Second}
		fuzzed := newFuzzed(t, limits)
		for len(script) >= 2 {
			fuzzed.step(script[0], script[1])
			script = script[2:]
		}
	})
}

// TestAnyInput is the fuzzer's search in a short form.
func TestAnyInput(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		f := newFuzzed(t, Limits{Min: r.IntN(4), Max: r.IntN(8), Expect: r.IntN(4), ExpectFor: 3 * time.Second,
			TTL: 2 * time.Second})
		for range 300 {
			f.step(byte(r.IntN(256)), byte(r.IntN(256)))
		}
	}
}

type fuzzed struct {
	t           *testing.T
	limits      Limits
	policy      *Policy
	now         time.Time
	etcd        Observed
	next        *job.World
	adopts      string
	durableStep int64
	waiting     bool // a transaction is in progress
}

func newFuzzed(t *testing.T, limits Limits) *fuzzed {
	p := New("job", "here", 0, limits)
	return &fuzzed{t: t, limits: p.limits, policy: p, now: time.Unix(0, 0)}
}

// step turns two bytes into one input.
func (f *fuzzed) step(what, detail byte) {
	id := string('a' + rune(detail&7))
	high := int64(detail >> 3)
	at := slices.IndexFunc(f.etcd.Members, func(m job.Member) bool { return m.ID == id })
	report := Report{Member: id, Generation: high, Resting: high&1 == 0, Agreed: high&4 == 4, Step: high - 1}
	if f.etcd.World != nil {
		report.Generation = f.etcd.World.Generation - high&1
	}
	switch what % 13 {
	case 0, 1:
		m := job.Member{ID: id, Address: fmt.Sprint(id, high&1), Numerics: "n", Leaving: high&6 == 6,
			Protocol: job.Protocol}
		if high == 31 {
			m.Numerics = "other"
		}
		f.etcd.Members = slices.Clone(f.etcd.Members)
		if at < 0 {
			f.etcd.Members = append(f.etcd.Members, m)
		} else {
			f.etcd.Members[at] = m
		}
		f.feed(f.etcd)
	case 2:
		if at >= 0 {
			f.etcd.Members = slices.Delete(slices.Clone(f.etcd.Members), at, at+1)
		}
		f.feed(f.etcd)
	case 3, 4: // the transaction came through
		if f.next != nil {
			f.etcd.World = f.next
		}
		if f.adopts != "" {
			f.etcd.Numerics = f.adopts
		}
		f.next, f.adopts, f.waiting = nil, "", false
		f.feed(f.etcd)
	case 5:
		f.next, f.adopts, f.waiting = nil, "", false
		f.feed(Unpublished{})
	case 6:
		report.Committed = true
		f.feed(report)
	case 7:
		report.Holding, report.Step = true, high
		f.feed(report)
	case 8:
		kinds := []string{KindBroken, KindDeadline, KindUnreachable, KindOther, KindProtocol, KindWaiting,
			"relayed", ""}
		report.Accusation = &Accusation{Suspect: string('a' + rune(high&7)), Kind: kinds[int(high)%len(kinds)],
			Paused: high&24 == 24}
		f.feed(report)
	case 9:
		f.feed(Probed{id, Outcome(high % 4)})
	case 10:
		f.feed(Unfollowed{id})
	case 11:
		f.feed(Durable{high})
	case 12:
		f.now = f.now.Add(time.Duration(detail) * 50 * time.Millisecond)
		if detail == 255 {
			f.feed(Halt{})
		}
		f.feed(Tick{})
	}
}

func (f *fuzzed) feed(input any) {
	f.t.Helper()
	for _, action := range f.policy.Step(f.now, input) {
		switch a := action.(type) {
		case Publish:
			f.check(a.World)
			f.next = &a.World
		case AdoptNumerics:
			f.begin()
			f.adopts = a.Value
		case Probe:
			if a.Address == "" {
				f.t.Fatalf("probe of %q at no address", a.Member)
			}
		case Note:
			if a.Text == "" {
				f.t.Fatal("an empty note")
			}
		}
	}
	ids := map[string]bool{}
	for _, m := range f.policy.members {
		ids[m.ID] = true
	}
	for _, p := range f.policy.peers() {
		ids[p.ID] = true
	}
	if len(f.policy.known) != len(ids) || len(f.policy.links) > len(ids)*len(ids) {
		f.t.Fatalf("%d members are there, %d known of", len(ids), len(f.policy.known))
	}
}

func (f *fuzzed) begin() {
	f.t.Helper()
	if f.waiting {
		f.t.Fatal("two transactions in progress")
	}
	f.waiting = true
}

func (f *fuzzed) check(w job.World) {
	f.t.Helper()
	f.begin()
	before := int64(0)
	if f.etcd.World != nil {
		before = f.etcd.World.Generation
	}
	switch {
	case w.Generation != before+1:
		f.t.Fatalf("generation %d after %d", w.Generation, before)
	case w.Since != w.Generation && w.Since != before:
		f.t.Fatalf("generation %d since %d", w.Generation, w.Since)
	case w.DurableStep < f.durableStep || w.Backoff < 0 || w.Backoff > 6 || w.Reason == "":
		f.t.Fatalf("world %+v after durable step %d", w, f.durableStep)
	case w.Size() > f.limits.Max || w.Size() < f.limits.Min && w.Size() > 0 && !w.Halt:
		f.t.Fatalf("%d members, not within %+v", w.Size(), f.limits)
	}
	f.durableStep = w.DurableStep
	for rank, p := range w.Peers {
		if w.Rank(p.ID) != rank || p.Address == "" {
			f.t.Fatalf("peers %v", w.Peers)
		}
	}
}
