package simulation

import (
	"flag"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/policy"
)

var (
	schedules = flag.Int("schedules", 1500, "how many seeds to simulate")
	oneSeed   = flag.Uint64("seed", 0, "simulate this one and show its events")
	firstSeed = flag.Uint64("first", 1, "the first of the seeds")
	pace      = flag.Duration("pace", shortestPace, "time between two reports of commits; up to 1 s in large worlds")
)

// emptySim has no process yet, and no length.
func emptySim(seed uint64, planted bug, trace func(string)) *sim {
	s := &sim{
		Rand: rand.New(rand.NewPCG(seed, 0x5eed)), bug: planted, trace: trace, blocked: map[[2]*process]bool{},
		rings: map[int64]*ring{}, worlds: map[int64]bool{}, disk: map[int64]uint64{0: canonical(0)},
		listens: map[string]*member{}, indexes: map[*job.World]*index{},
	}
	s.network = &process{sim: s, name: "etcd"}
	s.etcd = &etcd{sim: s, view: &view{}}
	return s
}

func newSim(seed uint64, planted bug, trace func(string), kinds ...int) *sim {
	s := emptySim(seed, planted, trace)
	r := s.Rand
	s.total, s.every = 20+r.Int64N(130), 3+r.Int64N(20)
	s.setup = setup{
		members: 1 + r.IntN(5), leaders: 1 + r.IntN(2),
		limits: policy.Limits{Min: 1 + r.IntN(2), Max: 2 + r.IntN(5), Expect: r.IntN(5), ExpectFor: 5 * time.Second,
			TTL: ttl},
	}
	s.chaos = chaos{sim: s, budget: r.IntN(20), rate: 0.004 * r.ExpFloat64(), until: 60 * time.Second,
		tame: r.IntN(4) == 0}
	if kinds != nil {
		s.chaos.kinds, s.chaos.tame, s.chaos.budget, s.chaos.rate = kinds, false, 30, 5*s.chaos.rate
	}
	if r.IntN(3) > 0 {
		s.chaos.from = r.Int64N(s.total)
	}
	if r.IntN(12) == 0 && kinds == nil {
		s.poisoned = 1 + r.Int64N(s.total)
	}
	if r.IntN(4) == 0 {
		s.size = s.between(0, 2*time.Second)
	}
	if r.IntN(6) == 0 && kinds == nil {
		s.setup.members += 2
		s.chaos.tame, s.chaos.liar, s.chaos.budget, s.chaos.rate = true, true, 1+r.IntN(20), 0.002+s.chaos.rate
		s.setup.limits.Max = max(s.setup.limits.Max, 3)
	}
	s.large, s.relayed = seed%3 == 0, seed%2 == 1 || s.chaos.liar
	backedOff := r.IntN(16) == 0
	if backedOff {
		s.backedOff()
	}
	s.etcd.sweep()
	for range s.setup.leaders {
		s.spawnLeader()
	}
	for range s.setup.members {
		s.spawnNew()
	}
	if !backedOff && len(s.members) > max(1, s.setup.limits.Min) && r.IntN(12) == 0 {
		s.members[0].faulty = true
	}
	if s.chaos.rift = backedOff || !s.chaos.tame && !s.members[0].faulty &&
		len(s.members) > max(2, s.setup.limits.Min) && r.IntN(5) == 0; s.chaos.rift {
		s.tear()
	}
	return s
}

// TestSchedules checks on every schedule: one world a generation; never two states for a step; the highest step wins;
// no committed step is lost while a holder or a durable checkpoint lives; and after the last fault the job ends.
func TestSchedules(t *testing.T) { try(t, "Schedules", *schedules) }

// TestDeathsAndPauses: members die and stop again and again, often before the world that they are in has opened.
func TestDeathsAndPauses(t *testing.T) { try(t, "DeathsAndPauses", *schedules*2/3, roughly...) }

func try(t *testing.T, name string, n int, kinds ...int) {
	t.Helper()
	if *oneSeed > 0 {
		var events strings.Builder
		failed := simulate(*oneSeed, noBug, func(line string) { events.WriteString(line + "\n") }, kinds...)
		t.Logf("seed %d:\n%s", *oneSeed, events.String())
		if failed != "" {
			t.Error(failed)
		}
		return
	}
	if testing.Short() {
		n /= 10
	}
	for seed, failed := range search(*firstSeed, n, noBug, 5, kinds...) {
		t.Errorf("seed %d: %s (go test ./internal/simulation -run %s -seed %d)", seed, failed, name, seed)
	}
}

// TestPlantedBugsAreFound shows that the simulator finds each kind of bug.
func TestPlantedBugsAreFound(t *testing.T) {
	for name, c := range map[string]struct {
		bug   bug
		first uint64 // seed to begin with, not far from one that finds it
		kinds []int  // of faults; nil: all
	}{
		"worlds published without a fence":          {unfenced, 1, nil},
		"the checkpoint wins over the highest step": {checkpointWins, 1, nil},
		"a step is committed though its sum failed": {eagerCommit, 1, nil},
		"a leaving member does not wait":            {hastyLeaver, 1, nil},
		"the end comes before the last checkpoint":  {earlyEnd, 1, nil},
		"an error of all members ends nothing":      {endlessFaults, 1, nil},
		"the opening's deadline is not doubled":     {openNotDoubled, 1, nil},
		"one member is believed":                    {oneIsBelieved, 1, nil},
		"one member votes twice":                    {votesTwice, 4100, nil},
		"one unreadable record freezes all views":   {frozenView, 1, nil},
		"blocks of a state are taken as they come":  {wrongBlocks, 8900, nil},
		"a leaving member goes by an old world":     {blindLeaver, 530, blindly},
	} {
		t.Run(name, func(t *testing.T) {
			found := search(c.first, 2000, c.bug, 1, c.kinds...)
			if len(found) == 0 {
				t.Fatal("it was not found")
			}
			for seed, failed := range found {
				t.Logf("seed %d: %s", seed, failed)
				if without := simulate(seed, noBug, nil, c.kinds...); without != "" {
					t.Errorf("seed %d fails without the bug too: %s", seed, without)
				}
			}
		})
	}
}

// search simulates n seeds side by side and returns up to limit failures.
func search(first uint64, n int, planted bug, limit int, kinds ...int) map[uint64]string {
	var (
		next    atomic.Uint64
		mu      sync.Mutex
		found   = map[uint64]string{}
		workers sync.WaitGroup
	)
	for range runtime.GOMAXPROCS(0) {
		workers.Go(func() {
			for i := next.Add(1) - 1; i < uint64(n); i = next.Add(1) - 1 {
				failed := simulate(first+i, planted, nil, kinds...)
				mu.Lock()
				if failed != "" {
					found[first+i] = failed
				}
				enough := len(found) >= limit
				mu.Unlock()
				if enough {
					return
				}
			}
		})
	}
	workers.Wait()
	return found
}
