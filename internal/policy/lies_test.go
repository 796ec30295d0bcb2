package policy

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/internal/job"
)

// liars is a stage with a world of members a, b, c, ... of which the last one lies. All of them answer probes.
type liars struct {
	*stage
	t    *testing.T
	liar string
}

func withLiar(t *testing.T, n int) *liars {
	s := &liars{&stage{now: time.Unix(0, 0)}, t, string(rune('a' + n - 1))}
	s.line("limits min=1 max=%d expect=%d", n, n)
	for i := range n {
		s.line("join %c", 'a'+i)
	}
	s.line("settle")
	for i := range n {
		s.line("commits %c 10", 'a'+i)
	}
	return s
}

func (s *liars) line(format string, args ...any) {
	s.t.Helper()
	words := strings.Fields(fmt.Sprintf(format, args...))
	if err := s.play(words[0], append(words[1:], "", "", "", "")); err != nil {
		s.t.Fatal(err)
	}
}

// neighbour is the member next to the liar, or another one's neighbour in the liar's direction.
func (s *liars) neighbour(of string) string {
	w := s.etcd.World
	n, rank, liar := w.Size(), w.Rank(of), w.Rank(s.liar)
	if of == s.liar || (liar-rank+n)%n <= n/2 {
		return w.Peers[(rank+1)%n].ID
	}
	return w.Peers[(rank+n-1)%n].ID
}

// accuses lets a member end the present world.
func (s *liars) accuses(id, suspect, kind string, step int64, paused bool) {
	s.feed(Report{Member: id, Generation: s.etcd.World.Generation, Step: step, Resting: true,
		Accusation: &Accusation{Suspect: suspect, Kind: kind, Phase: "receive", Step: 10, Paused: paused}})
}

// claims lets the liar say that it has committed a step of the present world.
func (s *liars) claims() {
	s.feed(Report{Member: s.liar, Generation: s.etcd.World.Generation, Committed: true, Agreed: true, Step: 1 << 40})
}

// relayed lets the others pass on what reaches them from the liar.
func (s *liars) relayed() {
	for _, p := range s.etcd.World.Peers {
		if p.ID != s.liar {
			s.accuses(p.ID, s.neighbour(p.ID), "relayed", 10, false)
		}
	}
}

// next waits for the next world. The members answer probes, and those that are left out rest.
func (s *liars) next(most time.Duration) bool {
	generation := s.etcd.World.Generation
	for end := s.now.Add(most); s.now.Before(end); s.now = s.now.Add(500 * time.Millisecond) {
		for _, p := range s.etcd.World.Peers {
			s.feed(Probed{p.ID, Alive})
		}
		s.feed(Tick{})
		if s.settle(); s.etcd.World.Generation > generation {
			for _, m := range s.etcd.Members {
				if s.etcd.World.Rank(m.ID) < 0 {
					s.feed(Report{Member: m.ID, Generation: generation, Step: 10, Resting: true})
				}
			}
			return true
		}
	}
	return false
}

// One member that ends each world, alone, by whatever it says, is left out again and again; the others never are, nor
// does the world become the liar's own. It does not matter whether the worlds open first, nor what the liar claims to
// have committed.
func TestOneThatEndsEachWorldIsLeftOut(t *testing.T) {
	kinds := []string{KindBroken, KindProtocol, KindDeadline, KindUnreachable, "relayed", "aborted", "nonsense",
		KindOther + " about a peer", KindOther, KindFetch, KindFetch + " from the coordinator", KindBroken + " paused",
		KindDeadline + " paused", "relayed paused", KindBroken + " by itself", "silence"}
	for _, n := range []int{3, 5} {
		for _, kind := range kinds {
			for _, opens := range []bool{false, true} {
				s, out, step := withLiar(t, n), 0, int64(10)
				what := fmt.Sprintf("of %d: %q, the worlds open: %v", n, kind, opens)
				for worlds := 0; out < 5; worlds++ {
					w := s.etcd.World
					if worlds > 100 {
						t.Fatalf("%s: left out %d times in %d worlds", what, out, worlds)
					}
					if w.Rank(s.liar) < 0 {
						out++
						for _, p := range w.Peers {
							s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: step})
						}
						s.next(11 * time.Minute)
						continue
					}
					if w.Size() != n {
						t.Fatalf("%s: world %d is %v", what, w.Generation, w.IDs())
					}
					step++
					for _, p := range w.Peers {
						if opens {
							s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: step})
						}
					}
					s.claims()
					word, suspect := strings.Fields(kind)[0], s.neighbour(s.liar)
					switch {
					case kind == KindOther || strings.HasSuffix(kind, "coordinator"):
						suspect = ""
					case strings.HasSuffix(kind, "itself"):
						suspect = s.liar
					}
					if kind != "silence" {
						s.accuses(s.liar, suspect, word, 1<<40, strings.HasSuffix(kind, "paused"))
					}
					s.relayed()
					if s.next(time.Minute); s.policy.failure != "" {
						t.Fatalf("%s: the job fails: %s", what, s.policy.failure)
					}
				}
			}
		}
	}
}

// Of three members, one lets each of the others accuse it, alone, and says that the accuser began; with one beside it,
// it gives that one no state. The world never becomes its own, and no other is dismissed, whichever of them it is.
func TestNoLiarTakesTheWorldOver(t *testing.T) {
	for _, liar := range []string{"a", "b", "c"} {
		for _, fetches := range []bool{false, true} {
			s, worlds := withLiar(t, 3), map[string]int{}
			s.liar = liar
			for range 60 {
				w := s.etcd.World
				worlds[strings.Join(w.IDs(), "")]++
				if w.Size() == 1 && w.Rank(s.liar) == 0 || len(s.policy.dismissed) > 0 {
					t.Fatalf("%s lies: worlds %v, now %v, dismissed %v", liar, worlds, w.IDs(), s.policy.dismissed)
				}
				if w.Rank(s.liar) < 0 {
					for _, p := range w.Peers {
						s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: 11})
					}
					s.next(11 * time.Minute)
					continue
				}
				victim, kind := s.neighbour(s.liar), KindBroken
				if fetches && w.Size() == 2 {
					kind = KindFetch
				}
				for _, p := range w.Peers {
					switch p.ID {
					case victim:
						s.accuses(victim, s.liar, kind, 10, false)
					case s.liar:
						s.accuses(s.liar, victim, "relayed", 1<<40, false)
					default:
						s.accuses(p.ID, s.liar, "relayed", 10, false)
					}
				}
				s.next(time.Minute)
			}
			if len(worlds) < 2 {
				t.Errorf("%s lies: worlds %v: no member was ever left out", liar, worlds)
			}
		}
	}
}

// A member that breaks its links and says that it was its neighbour, which truly says that the link broke: the
// neighbour is the one that accuses alone. It is never dismissed for that, and in a world of five the liar is out most
// of the time.
func TestAVictimIsNotDismissed(t *testing.T) {
	for _, n := range []int{3, 5} {
		for _, opens := range []bool{false, true} {
			s, out := withLiar(t, n), map[string]int{}
			for round := range 100 {
				w := s.etcd.World
				for _, m := range s.etcd.Members {
					if w.Rank(m.ID) < 0 {
						out[m.ID]++
					}
				}
				if w.Rank(s.liar) < 0 || w.Size() < 3 {
					for _, p := range w.Peers {
						s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: 11})
					}
					s.next(11 * time.Minute)
					continue
				}
				for _, p := range w.Peers {
					if opens {
						s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: int64(11 + round)})
					}
				}
				victim := s.neighbour(s.liar)
				s.accuses(s.liar, victim, "relayed", 10, false)
				for _, p := range w.Peers {
					switch p.ID {
					case victim:
						s.accuses(victim, s.liar, KindBroken, 10, false)
					case s.liar:
					default:
						s.accuses(p.ID, s.neighbour(p.ID), "relayed", 10, false)
					}
				}
				s.next(time.Minute)
			}
			if len(s.policy.dismissed) > 0 {
				t.Errorf("of %d, the worlds open: %v: dismissed %v", n, opens, s.policy.dismissed)
			}
			if n == 5 && (out["e"] < 20 || out["a"]+out["b"]+out["c"]+out["d"] > 10) {
				t.Errorf("of %d, the worlds open: %v: left out in so many of 100 worlds: %v", n, opens, out)
			}
		}
	}
}

// What is rare is forgiven, however few steps are between: a link that breaks now and then, seen by one end or both,
// errors of a member's own, a member that is paused.
func TestRareFailuresAreForgiven(t *testing.T) {
	for _, kind := range []string{KindBroken, KindDeadline, KindDeadline + " paused", KindOther} {
		for _, n := range []int{1, 2, 3, 5} {
			if n == 1 && kind != KindOther {
				continue
			}
			s := withLiar(t, n)
			for round := range 60 {
				w := s.etcd.World
				if w.Size() != n || len(s.policy.dismissed) > 0 {
					t.Fatalf("%q: of %d, after %d failures: world %v, dismissed %v", kind, n, round, w.IDs(),
						s.policy.dismissed)
				}
				for _, p := range w.Peers {
					s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Agreed: true,
						Step: int64(20 + 10*round)})
				}
				s.line("wait 20m")
				s.step = int64(20 + 10*round)
				suspect := s.neighbour(s.liar)
				if kind == KindOther {
					suspect = ""
				}
				s.feed(Report{Member: s.liar, Generation: w.Generation, Step: s.step, Resting: true,
					Accusation: &Accusation{Suspect: suspect, Kind: strings.Fields(kind)[0], Phase: "receive",
						Step: s.step, Paused: strings.HasSuffix(kind, "paused")}})
				s.relayed()
				s.next(time.Minute)
			}
		}
	}
}

// One of five accuses as soon as a world is there, and the others need longer to enter it than reports are waited for:
// none of them is left out for that.
func TestAFastAccuserLeavesNoMemberOut(t *testing.T) {
	for _, kind := range []string{KindDeadline, KindUnreachable, KindFetch} {
		s := withLiar(t, 5)
		for round := range 20 {
			w := s.etcd.World
			if w.Rank(s.liar) < 0 {
				break
			}
			if w.Size() < 5 {
				t.Fatalf("%s: the world is %v", kind, w.IDs())
			}
			s.accuses(s.liar, s.neighbour(s.liar), kind, 10, false)
			if s.next(1500 * time.Millisecond) {
				if round == 0 { // they were in the first one
					continue
				}
				t.Fatalf("%s: world %v before the others have entered the one before", kind, s.etcd.World.IDs())
			}
			s.relayed()
			s.next(time.Minute)
		}
		if s.etcd.World.Rank(s.liar) >= 0 {
			t.Errorf("%s: it is never left out", kind)
		}
	}
}

// A member that never connects gains nothing by saying that it commits, nor do the errors of all the others.
func TestALiarClearsNoCounts(t *testing.T) {
	s := withLiar(t, 4)
	for range 60 {
		w := s.etcd.World
		if len(s.policy.dismissed) > 0 {
			break
		}
		if w.Rank(s.liar) < 0 {
			for _, p := range w.Peers {
				s.feed(Report{Member: p.ID, Generation: w.Generation, Committed: true, Step: 11})
			}
			s.next(11 * time.Minute)
			continue
		}
		s.claims()
		for _, p := range w.Peers {
			if p.ID != s.liar {
				s.accuses(p.ID, s.liar, KindUnreachable, 10, false)
			}
		}
		s.next(time.Minute)
	}
	if s.policy.dismissed[s.liar] == "" {
		t.Errorf("%v are dismissed, and %s never connects", s.policy.dismissed, s.liar)
	}

	s = withLiar(t, 5)
	for range 10 {
		s.claims()
		s.accuses(s.liar, "", KindOther, 10, false)
		for _, id := range []string{"a", "b", "c"} {
			s.accuses(id, "", KindOther, 10, false)
		}
		s.accuses("d", "a", "relayed", 10, false)
		s.next(time.Minute)
	}
	if s.policy.failure == "" {
		t.Error("three members fail at one step, and the job goes on for ever")
	}
}

// A hundred steps that most commit clear a member's count, and a member that is out proves nothing meanwhile.
func TestStepsOfMostClearCounts(t *testing.T) {
	s := withLiar(t, 3)
	commit := func(step int64, ids ...string) {
		for _, id := range ids {
			s.feed(Report{Member: id, Generation: s.etcd.World.Generation, Committed: true, Step: step})
		}
	}
	for range 2 {
		s.accuses("c", "a", KindBroken, 10, false)
		s.relayed()
		s.next(time.Minute)
	}
	commit(500, "a", "b")
	if s.next(6 * time.Second); s.etcd.World.Rank("c") < 0 {
		t.Fatalf("the world is %v", s.etcd.World.IDs())
	}
	commit(501, "a", "b", "c")
	if n := s.policy.standing("c").quarantines; n != 1 {
		t.Errorf("%d quarantines are counted after a step, want 1", n)
	}
	commit(1<<40, "c")
	if n := s.policy.standing("c").quarantines; n != 1 {
		t.Errorf("%d quarantines are counted by its own word", n)
	}
	commit(599, "a", "b")
	if n := s.policy.standing("c").quarantines; n != 1 {
		t.Errorf("%d quarantines are counted after 99 steps", n)
	}
	commit(600, "a", "b")
	if c := s.policy.standing("c"); c.quarantines+c.charges+c.helpless != 0 || s.policy.proving {
		t.Errorf("after 100 steps it has %+v", c)
	}
}

// The first to come does not decide the job's numerics when more are expected; one of two does.
func TestTheFirstDoesNotDecideTheNumerics(t *testing.T) {
	p, now := New("job", "here", 0, Limits{Min: 1, Max: 4, Expect: 3, ExpectFor: time.Minute, TTL: 5 * time.Second}),
		time.Unix(0, 0)
	var in Observed
	come := func(id, numerics string) []any {
		in.Members = append(slices.Clone(in.Members), job.Member{ID: id, Address: id + ":1", Numerics: numerics,
			Protocol: job.Protocol})
		return p.Step(now, in)
	}
	for _, out := range [][]any{come("first", "other"), come("second", "most")} {
		if _, adopts := out[0].(AdoptNumerics); adopts {
			t.Fatalf("%v before all have come", out)
		}
	}
	if out := come("third", "most"); len(out) != 1 || out[0] != (AdoptNumerics{Value: "most"}) {
		t.Errorf("%v, want the numerics of two of three", out)
	}
}

// A member that changes its keys without end gets no world for each.
func TestKeysAreRenewedAtAPace(t *testing.T) {
	p, etcd, now := crowd(t, 4, 0)
	worlds := 0
	for i := range 1000 {
		now = now.Add(100 * time.Millisecond)
		etcd.Members = slices.Clone(etcd.Members)
		etcd.Members[3].Keys = []string{fmt.Sprint(i)}
		for _, a := range p.Step(now, etcd) {
			if a, ok := a.(Publish); ok {
				worlds++
				etcd.World = &a.World
			}
		}
		p.Step(now, etcd)
		for _, peer := range etcd.World.Peers {
			p.Step(now, commits(peer, etcd.World, int64(i+2)))
		}
	}
	if worlds < 9 || worlds > 10 {
		t.Errorf("%d worlds in 100 s, want one each 10 s", worlds)
	}
}
