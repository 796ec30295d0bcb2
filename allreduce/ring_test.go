package allreduce_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave/allreduce"
	"evenweave/allreduce/allreducetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const generous = 3 * time.Minute

func TestInMemoryLinks(t *testing.T) {
	allreducetest.Suite(t, func(t *testing.T, size int) []allreducetest.Links {
		return allreducetest.Ring(size, 1, -1, nil)
	})
}

// FuzzSum compares a ring of any shape with a naive sum.
func FuzzSum(f *testing.F) {
	f.Add(uint8(4), uint16(10), uint16(64), uint16(256), uint64(1))
	f.Add(uint8(16), uint16(5), uint16(8), uint16(0), uint64(2))
	f.Add(uint8(3), uint16(2000), uint16(100), uint16(300), uint64(3))
	f.Fuzz(func(t *testing.T, size uint8, length, segment, window uint16, seed uint64) {
		n, k := 1+int(size)%16, int(length)%3000
		rings := allreducetest.World(t, allreducetest.Ring(n, seed, -1, nil), 8+int(segment), int(window))
		ctx, stop := context.WithTimeout(t.Context(), generous)
		defer stop()
		want := make([]int64, k)
		bufs := make([][]int64, n)
		for r := range bufs {
			rng := rand.New(rand.NewPCG(seed, uint64(r)))
			bufs[r] = make([]int64, k)
			for i := range bufs[r] {
				bufs[r][i] = int64(rng.Uint64())
				want[i] += bufs[r][i]
			}
		}
		errs := allreducetest.Each(n, func(r int) error {
			if err := rings[r].Sum(ctx, 1, bufs[r]); err != nil {
				return err
			}
			for i, x := range bufs[r] {
				if x != want[i] {
					return fmt.Errorf("rank %d of %d: element %d of %d is %d, expected %d", r, n, i, k, x, want[i])
				}
				bufs[r][i] = -1
			}
			return nil
		})
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		allreducetest.Close(t, rings)
	})
}

// A fault on the link from rank 1 to rank 2 must never give a wrong sum: rank 2 names rank 1, and all members learn it.
func TestFaultsAreNamed(t *testing.T) {
	const size, culprit, victim = 4, 1, 2
	faults := map[string]struct {
		fault allreducetest.Fault
		kind  allreduce.Kind
		says  string
	}{
		"flipped magic":      {allreducetest.Flip(3, 5), allreduce.Protocol, "version"},
		"flipped header":     {allreducetest.Flip(3, 8*30), allreduce.Protocol, "header was damaged"},
		"flipped payload":    {allreducetest.Flip(3, 8*75+1), allreduce.Protocol, "was damaged"},
		"truncated payload":  {allreducetest.Truncate(2, 1), allreduce.Protocol, "payload bytes"},
		"truncated header":   {allreducetest.Truncate(2, 1<<20), allreduce.Protocol, "shorter than its header"},
		"extended":           {allreducetest.Extend(0, 1), allreduce.Protocol, "payload bytes"},
		"duplicated":         {allreducetest.Duplicate(1), allreduce.Protocol, "frame number"},
		"lost in the middle": {allreducetest.Drop(1), allreduce.Protocol, "frame number"},
		"silence":            {allreducetest.Stall(2), allreduce.Deadline, "deadline"},
	}
	for name, c := range faults {
		t.Run(name, func(t *testing.T) {
			rings := allreducetest.World(t, allreducetest.Ring(size, 1, culprit, c.fault), 64, 0)
			errs := allreducetest.Each(size, func(r int) error {
				limit := generous
				if r == victim && c.kind == allreduce.Deadline {
					limit = 50 * time.Millisecond
				}
				ctx, stop := context.WithTimeout(t.Context(), limit)
				defer stop()
				return rings[r].Sum(ctx, 1, make([]int64, 100))
			})
			var e *allreduce.Error
			if !errors.As(errs[victim], &e) || e.Kind != c.kind || e.Peer != culprit || e.PeerID != "member-1" ||
				e.Step != 1 || !strings.Contains(e.Error(), c.says) {
				t.Errorf("rank %d says %v; expected a %v of rank %d that says %q", victim, errs[victim], c.kind,
					culprit, c.says)
			}
			for r, err := range errs {
				if err == nil {
					t.Errorf("rank %d noticed nothing", r)
				}
			}
		})
	}
}

// Members with different configurations refuse each other's first frame.
func TestStrangersAreRefused(t *testing.T) {
	type change func(*allreduce.Config)
	for says, c := range map[string]change{
		"job":           func(c *allreduce.Config) { c.Job = "another" },
		"generation":    func(c *allreduce.Config) { c.Generation++ },
		"payload bytes": func(c *allreduce.Config) { c.SegmentBytes = 64 },
	} {
		t.Run(says, func(t *testing.T) {
			links := allreducetest.Ring(2, 1, -1, nil)
			errs := allreducetest.Each(2, func(r int) error {
				cfg := allreduce.Config{Job: "job", Generation: 1, Rank: r, Size: 2}
				if r == 1 {
					c(&cfg)
				}
				ring, err := allreduce.New(cfg, links[r].Left, links[r].Right)
				if err != nil {
					return err
				}
				return ring.Sum(t.Context(), 1, make([]int64, 100))
			})
			if all := fmt.Sprint(errs); errs[0] == nil || errs[1] == nil || !strings.Contains(all, says) {
				t.Errorf("got %v, expected both to fail and one to say %q", errs, says)
			}
		})
	}
}

func TestImpossibleConfigurationsAreRefused(t *testing.T) {
	for _, cfg := range []allreduce.Config{
		{Size: 0}, {Size: 2, Rank: 2}, {Size: 2, Rank: -1}, {Size: 1 << 15}, {Size: 1, SegmentBytes: 7},
		{Size: 1, WindowBytes: -1}, {Size: 2},
	} {
		if _, err := allreduce.New(cfg, nil, nil); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestOneSumAtATime(t *testing.T) {
	rings := allreducetest.World(t, allreducetest.Ring(2, 1, -1, nil), 0, 0)
	first := make(chan error)
	go func() { first <- rings[0].Sum(t.Context(), 1, make([]int64, 10)) }()
	for rings[0].Waiting().Op == "idle" { // until the first Sum runs
		if t.Context().Err() != nil {
			t.Fatal("the first Sum never ran")
		}
	}
	var e *allreduce.Error
	if err := rings[0].Sum(t.Context(), 2, nil); !errors.As(err, &e) || e.Kind != allreduce.Aborted {
		t.Errorf("a second Sum at the same time got %v", err)
	}
	edge := rings[0].Waiting()
	if edge.Peer != 1 || edge.PeerID != "member-1" || edge.Step != 1 {
		t.Errorf("rank 0 waits for rank 1 and says %v", edge)
	}
	rings[0].Abort(errors.New("enough"))
	if err := <-first; err == nil {
		t.Error("the aborted Sum returned nil")
	}
	<-rings[1].Done()
}

// A Sum in steady state allocates nothing.
func TestNoAllocations(t *testing.T) {
	rings := allreducetest.World(t, allreducetest.Ring(2, 1, -1, nil), 1024, 4096)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	const sums = 200
	bufs := [2][]int64{make([]int64, 5000), make([]int64, 5000)}
	other := make(chan error, 1)
	go func() {
		for step := range int64(sums + 1) {
			if err := rings[1].Sum(ctx, step, bufs[1]); err != nil {
				other <- err
				return
			}
		}
		other <- nil
	}()
	step := int64(0)
	allocated := testing.AllocsPerRun(sums, func() {
		if err := rings[0].Sum(ctx, step, bufs[0]); err != nil {
			t.Fatal(err)
		}
		step++
	})
	if err := <-other; err != nil {
		t.Fatal(err)
	}
	if allocated >= 1 { // The pipes make their buffers in the first sums.
		t.Errorf("%v allocations a sum, expected none", allocated)
	}
	allreducetest.Close(t, rings)
}
