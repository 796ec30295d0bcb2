package simulation

import (
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

// index answers for a world what each of a thousand members asks at each event.
type index struct {
	peers      map[job.Peer]bool
	fresh      map[string]bool
	freshRanks []bool
}

func (s *sim) indexOf(w *job.World) *index {
	if i := s.indexes[w]; i != nil {
		return i
	}
	i := &index{peers: map[job.Peer]bool{}, fresh: map[string]bool{}, freshRanks: w.FreshRanks()}
	for rank, p := range w.Peers {
		i.peers[p] = true
		if i.freshRanks[rank] {
			i.fresh[p.ID] = true
		}
	}
	s.indexes[w] = i
	return i
}

// TestAThousandMembers train, lose 8 at once, whose places spares take, and are scaled down to 16: the promises that
// TestSchedules checks hold, and few worlds are needed.
func TestAThousandMembers(t *testing.T) {
	const size, spares, few = 1000, 12, 16
	s := emptySim(1, noBug, nil)
	s.total, s.every, s.crowd = 12, 5, true
	s.setup = setup{members: size + spares, leaders: 1,
		limits: policy.Limits{Min: 1, Max: size, Expect: size, ExpectFor: time.Minute, TTL: ttl}}
	s.chaos = chaos{sim: s, budget: 1, until: time.Minute, tame: true} // no faults but these
	s.etcd.sweep()
	s.spawnLeader()
	for range s.setup.members {
		s.spawnNew()
	}
	var trained, lost, scaled *job.World
	dead := map[string]bool{}
	whole := func(w *job.World) bool {
		for _, p := range w.Peers {
			if dead[p.ID] {
				return false
			}
		}
		return w.Size() == size
	}
	var watch func()
	watch = func() {
		w := s.etcd.world
		switch {
		case trained == nil && s.furthest >= 3:
			trained = w
			for rank := 100; rank < 900; rank += 100 {
				m := s.listener(w.Peers[rank].Address)
				dead[m.id] = true
				s.kill(m, false)
			}
		case trained != nil && lost == nil && whole(w) && s.opened == w.Generation:
			lost = w
			for _, m := range s.members {
				if r := w.Rank(m.id); !m.dead && (r < 0 || r >= few) {
					m.leave()
				}
			}
		case lost != nil && scaled == nil && w.Size() == few && s.opened == w.Generation:
			scaled = w
		}
		s.after(10*time.Millisecond, watch)
	}
	watch()
	s.run()
	switch {
	case s.failed != "":
		t.Fatal(s.failed)
	case trained == nil || lost == nil || scaled == nil:
		t.Fatalf("worlds with all %v, without the dead %v, scaled down %v: the job was over before", trained != nil,
			lost != nil, scaled != nil)
	case trained.Size() != size || !s.etcd.done.Complete:
		t.Errorf("a first world of %d, ended with %+v", trained.Size(), s.etcd.done)
	}
	t.Logf("generations %d, %d, %d; %v of virtual time", trained.Generation, lost.Generation, scaled.Generation, s.now)
	if lost.Generation > trained.Generation+8 || scaled.Generation > lost.Generation+20 {
		t.Errorf("%d worlds for 8 deaths, %d to scale down", lost.Generation-trained.Generation,
			scaled.Generation-lost.Generation)
	}
}
