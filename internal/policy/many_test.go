package policy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"evenweave/internal/job"
)

// crowd is a policy whose world has n members that train, and spares.
func crowd(tb testing.TB, n, spares int) (p *Policy, etcd Observed, now time.Time) {
	tb.Helper()
	limits := Limits{Min: 1, Max: n, Expect: n, ExpectFor: time.Minute, TTL: 5 * time.Second}
	p, now = New("job", "c:1", 0, limits), time.Unix(0, 0)
	etcd.Numerics = "n"
	for i := range n + spares {
		id := fmt.Sprintf("m%04d", i)
		etcd.Members = append(etcd.Members, job.Member{ID: id, Address: id + ":1", Numerics: "n",
			Protocol: job.Protocol})
	}
	settle := func(actions []any) (published bool) {
		for _, a := range actions {
			if a, ok := a.(Publish); ok {
				etcd.World, published = &a.World, true
			}
		}
		return published
	}
	p.Step(now, etcd)
	for _, m := range etcd.Members {
		settle(p.Step(now, Report{Member: m.ID, Step: -1, Resting: true}))
	}
	if etcd.World.Size() != n {
		tb.Fatalf("a world of %d, want %d", etcd.World.Size(), n)
	}
	p.Step(now, etcd)
	for _, peer := range etcd.World.Peers {
		if settle(p.Step(now, commits(peer, etcd.World, 1))) {
			tb.Fatal("another world without a reason")
		}
	}
	return p, etcd, now
}

func commits(peer job.Peer, w *job.World, step int64) Report {
	return Report{Member: peer.ID, Generation: w.Generation, Committed: true, Step: step}
}

// TestAThousandMembers train, lose 8 at once to spares, and are scaled down.
func TestAThousandMembers(t *testing.T) {
	p, etcd, now := crowd(t, 1000, 20)
	world := func(input any) *job.World {
		for actions := p.Step(now, input); ; actions = p.Step(now, etcd) {
			i := slices.IndexFunc(actions, func(a any) bool { _, ok := a.(Publish); return ok })
			if i < 0 {
				return etcd.World
			}
			w := actions[i].(Publish).World
			etcd.World = &w
		}
	}
	before := etcd.World
	dead := map[string]bool{}
	for i := 100; i < 900; i += 100 {
		dead[before.Peers[i].ID] = true
	}
	for _, peer := range before.Peers {
		if !dead[peer.ID] {
			a := &Accusation{Suspect: before.Peers[100].ID, Kind: "relayed", Step: 1}
			world(Report{Member: peer.ID, Generation: before.Generation, Committed: true, Step: 1, Accusation: a})
		}
	}
	for _, peer := range before.Peers {
		outcome := Alive
		if dead[peer.ID] {
			outcome = Refused
		}
		world(Probed{peer.ID, outcome})
	}
	for range 8 { // worlds that do not open come with pauses
		now = now.Add(10 * time.Second)
		world(Tick{})
	}
	w := etcd.World // each death that is known at another time may cost a world
	if w.Generation == before.Generation || w.Generation > before.Generation+8 || w.Size() != 1000 {
		t.Fatalf("generation %d of %d members after 8 deaths in generation %d, want 1000", w.Generation, w.Size(),
			before.Generation)
	}
	for id := range dead {
		if w.Rank(id) >= 0 {
			t.Errorf("%s is dead and in the world", id)
		}
	}
	for _, peer := range w.Peers {
		world(commits(peer, w, 2))
	}
	for i := range etcd.Members { // all but 16 leave
		etcd.Members[i].Leaving = w.Rank(etcd.Members[i].ID) < 0 || w.Rank(etcd.Members[i].ID) >= 16
	}
	if w = world(etcd); w.Size() != 16 || w.Since >= w.Generation {
		t.Errorf("%d members since %d of generation %d, want 16 by a planned change", w.Size(), w.Since, w.Generation)
	}
}

// BenchmarkReport is the cost of one commit that is reported, which every member does up to 20 times a second.
func BenchmarkReport(b *testing.B) {
	for _, n := range []int{16, 64, 128, 1000} {
		b.Run(fmt.Sprintf("members=%d", n), func(b *testing.B) {
			p, etcd, now := crowd(b, n, n/4)
			step := int64(2)
			for b.Loop() {
				p.Step(now, commits(etcd.World.Peers[step%int64(n)], etcd.World, step))
				step++
			}
		})
	}
}
