package allreducetest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"evenweave/allreduce"
)

const (
	job      = "7b1c1a52-0d2b-4b7e-9a53-2f6d1e0c9a11"
	generous = 3 * time.Minute // for what must succeed
	short    = 50 * time.Millisecond
)

// Open returns the links of a fresh world. The test's cleanup ends them.
type Open func(t *testing.T, size int) []Links

// Suite proves that links carry a ring: sums of every shape are right, and for every kind of failure all members learn
// it at once and name the peer that they waited for.
func Suite(t *testing.T, open Open) {
	t.Run("Sums", func(t *testing.T) {
		for size := 1; size <= 8; size++ {
			t.Run(fmt.Sprintf("size=%d", size), func(t *testing.T) {
				sums(t, open(t, size))
			})
		}
	})
	t.Run("Abort", func(t *testing.T) { abort(t, open) })
	t.Run("AbortWhileIdle", func(t *testing.T) { abortWhileIdle(t, open) })
	t.Run("Deadline", func(t *testing.T) { deadline(t, open) })
	t.Run("Cancel", func(t *testing.T) { cancel(t, open) })
	t.Run("OtherStep", func(t *testing.T) { otherStep(t, open) })
	t.Run("LeaverIsAcknowledged", func(t *testing.T) { leaver(t, open) })
}

// World makes a ring of links, one member each.
func World(t testing.TB, links []Links, segment, window int) []*allreduce.Ring {
	t.Helper()
	ids := make([]string, len(links))
	for i := range ids {
		ids[i] = fmt.Sprintf("member-%d", i)
	}
	rings := make([]*allreduce.Ring, len(links))
	for i, l := range links {
		cfg := allreduce.Config{Job: job, Generation: 3, Rank: i, Size: len(links), Members: ids, SegmentBytes: segment,
			WindowBytes: window}
		r, err := allreduce.New(cfg, l.Left, l.Right)
		if err != nil {
			t.Fatal(err)
		}
		rings[i] = r
	}
	return rings
}

// Each runs f for every rank at once and returns their errors by rank.
func Each(size int, f func(rank int) error) []error {
	errs := make([]error, size)
	var all sync.WaitGroup
	for i := range size {
		all.Go(func() { errs[i] = f(i) })
	}
	all.Wait()
	return errs
}

// Close ends all rings in good order.
func Close(t testing.TB, rings []*allreduce.Ring) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	if err := errors.Join(Each(len(rings), func(i int) error { return rings[i].Close(ctx) })...); err != nil {
		t.Fatal(err)
	}
}

// lengths are the buffer lengths to sum over a world: none, all up to three elements a member, and two that need
// several segments or rounds.
func lengths(size int) []int {
	var all []int
	for n := range 3*size + 1 {
		all = append(all, n)
	}
	return append(all, 1000+size, 111_100)
}

func sums(t *testing.T, links []Links) {
	size := len(links)
	rings := World(t, links, 16<<10, 32<<10)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	errs := Each(size, func(rank int) error {
		for step, length := range lengths(size) {
			buf := make([]int64, length)
			for i := range buf {
				buf[i] = element(step, rank, i)
			}
			if err := rings[rank].Sum(ctx, int64(step), buf); err != nil {
				return err
			}
			for i := range buf {
				var want int64
				for r := range size {
					want += element(step, r, i)
				}
				if buf[i] != want {
					return fmt.Errorf("rank %d, %d elements: element %d is %v, expected %v",
						rank, length, i, buf[i], want)
				}
				buf[i] = -1 // The caller may overwrite it at once.
			}
		}
		return nil
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	Close(t, rings)
}

func element(step, rank, i int) int64 {
	return int64((step*7919+rank*10_473+i*31)%1009 - 500)
}

// expectFailures checks that every rank but except failed with one of the kinds, at the edge to a neighbour.
func expectFailures(t *testing.T, errs []error, except int, kinds ...allreduce.Kind) {
	t.Helper()
	for rank, err := range errs {
		if rank == except {
			continue
		}
		var e *allreduce.Error
		if !errors.As(err, &e) {
			t.Errorf("rank %d: got %v, expected an *allreduce.Error", rank, err)
			continue
		}
		ok := false
		for _, k := range kinds {
			ok = ok || e.Kind == k
		}
		if !ok || e.Rank != rank || e.Generation != 3 || e.Peer >= 0 && e.PeerID != fmt.Sprintf("member-%d", e.Peer) {
			t.Errorf("rank %d: got %v, expected one of %v", rank, err, kinds)
		}
	}
}

func abort(t *testing.T, open Open) {
	const size = 4
	rings := World(t, open(t, size), 0, 0)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	begun := time.Now()
	errs := Each(size, func(rank int) error {
		if rank == 2 {
			rings[rank].Abort(errors.New("the test says so"))
		}
		return rings[rank].Sum(ctx, 1, make([]int64, 1000))
	})
	expectFailures(t, errs, 2, allreduce.Broken, allreduce.Relayed)
	var own *allreduce.Error
	if !errors.As(errs[2], &own) || own.Kind != allreduce.Aborted {
		t.Errorf("rank 2 aborted and got %v", errs[2])
	}
	if took := time.Since(begun); took > generous/2 {
		t.Errorf("the members learned of the abort only after %v", took)
	}
	for rank, r := range rings {
		if again := r.Sum(ctx, 2, nil); again != errs[rank] {
			t.Errorf("rank %d: a later Sum returned %v, expected the first error again", rank, again)
		}
	}
}

func abortWhileIdle(t *testing.T, open Open) {
	rings := World(t, open(t, 3), 0, 0)
	rings[0].Abort(errors.New("the test says so"))
	for rank, r := range rings {
		select {
		case <-r.Done():
		case <-time.After(generous):
			t.Errorf("rank %d did not learn that rank 0 gave up", rank)
		}
	}
}

// deadline leaves rank 1 out of a Sum: all others must return, and one must name it.
func deadline(t *testing.T, open Open) {
	const size = 3
	rings := World(t, open(t, size), 0, 0)
	named := false
	errs := Each(size, func(rank int) error {
		if rank == 1 {
			<-rings[rank].Done()
			return rings[rank].Err()
		}
		limit := short
		if rank == 0 { // It waits for rank 2, which waits for rank 1 with a shorter deadline.
			limit = generous
		}
		ctx, stop := context.WithTimeout(t.Context(), limit)
		defer stop()
		return rings[rank].Sum(ctx, 1, make([]int64, 10))
	})
	expectFailures(t, errs, -1, allreduce.Deadline, allreduce.Relayed, allreduce.Broken)
	var e *allreduce.Error
	if errors.As(errs[2], &e) {
		named = e.Kind == allreduce.Deadline && e.Op == "receive" && e.Peer == 1 && e.PeerID == "member-1" &&
			e.Waited > 0 // a starved member may begin to wait when most of its time is over
	}
	if !named || !errors.Is(errs[2], context.DeadlineExceeded) {
		t.Errorf("rank 2 waited for rank 1 and says: %v", errs[2])
	}
}

func cancel(t *testing.T, open Open) {
	rings := World(t, open(t, 2), 0, 0)
	ctx, stop := context.WithCancelCause(t.Context())
	cause := errors.New("the world changed")
	errs := Each(2, func(rank int) error {
		if rank == 1 {
			stop(cause)
			<-rings[rank].Done()
			return rings[rank].Err()
		}
		return rings[rank].Sum(ctx, 1, make([]int64, 10))
	})
	if !errors.Is(errs[0], cause) {
		t.Errorf("a cancelled Sum returned %v, expected the cause %q", errs[0], cause)
	}
	expectFailures(t, errs, 0, allreduce.Relayed, allreduce.Broken)
}

func otherStep(t *testing.T, open Open) {
	const size = 3
	rings := World(t, open(t, size), 0, 0)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	errs := Each(size, func(rank int) error {
		step := int64(7)
		if rank == 0 {
			step = 8
		}
		return rings[rank].Sum(ctx, step, make([]int64, 100))
	})
	expectFailures(t, errs, -1, allreduce.Protocol, allreduce.Relayed, allreduce.Broken)
	found := false
	for _, err := range errs {
		var e *allreduce.Error
		found = found || errors.As(err, &e) && e.Kind == allreduce.Protocol && strings.Contains(err.Error(), "step")
	}
	if !found {
		t.Errorf("no member names the step: %v", errs)
	}
}

// leaver closes one member long before the others: it must return, and they must not notice.
func leaver(t *testing.T, open Open) {
	const size = 3
	rings := World(t, open(t, size), 0, 0)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	if err := errors.Join(Each(size,
		func(rank int) error { return rings[rank].Sum(ctx, 1, make([]int64, 1000)) })...); err != nil {
		t.Fatal(err)
	}
	if err := rings[1].Close(ctx); err != nil {
		t.Fatalf("the leaver: %v", err)
	}
	for _, rank := range []int{0, 2} {
		if err := rings[rank].Err(); err != nil {
			t.Errorf("rank %d noticed that rank 1 left in good order: %v", rank, err)
		}
	}
	Close(t, []*allreduce.Ring{rings[0], rings[2]})
}
