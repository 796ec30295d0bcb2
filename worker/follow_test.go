package worker

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	wire "google.golang.org/protobuf/proto"

	"evenweave"
	"evenweave/proto"
)

// follower is the coordinator's end of a Follow.
type follower struct {
	grpc.ServerStream
	ctx      context.Context
	statuses chan *proto.Status
}

func (f follower) Context() context.Context { return f.ctx }

func (f follower) Send(s *proto.Status) error {
	f.statuses <- s
	return nil
}

// A change that the policy acts on is sent at once, also if it comes just as the follower looks for commits. Commits
// are sent in time, together.
func TestFollowersGetChangesAtOnceAndCommitsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReport("w1", "job")
		ctx, stop := context.WithCancel(t.Context())
		f := follower{ctx: ctx, statuses: make(chan *proto.Status)}
		done := make(chan error)
		go func() {
			done <- (&server{report: r, job: "job"}).Follow(&proto.FollowRequest{Job: "job", AfterStep: -1}, f)
		}()
		<-f.statuses // the first

		for i := range 200 {
			<-time.After(shortestPace * time.Duration(i%3)) // at once; just as the follower looks
			verdict, reported := fmt.Sprint(i), time.Now()
			r.set(func(s *proto.Status) { s.Verdict = verdict })
			for s := range f.statuses {
				if s.Verdict == verdict {
					break
				}
			}
			if late := time.Since(reported); late > 0 {
				t.Fatalf("change %d was sent after %v", i, late)
			}
		}

		begun := time.Now()
		for step := range int64(10) {
			r.commit(&proto.Commit{Step: step + 1}, nil)
		}
		if s := <-f.statuses; len(s.Commits) != 10 || time.Since(begun) > shortestPace {
			t.Errorf("%d commits were sent after %v, expected 10 within %v", len(s.Commits), time.Since(begun),
				shortestPace)
		}
		begun = time.Now()
		if s := <-f.statuses; len(s.Commits) != 0 || time.Since(begun) < signOfLife ||
			time.Since(begun) > signOfLife+2*shortestPace {
			t.Errorf("the sign of life came after %v with %d commits", time.Since(begun), len(s.Commits))
		}
		stop()
		<-done
	})
}

// A coordinator that leads again has all commits already: it still learns their generation.
func TestAFollowerWithAllCommitsLearnsTheGeneration(t *testing.T) {
	r := newReport("w1", "job")
	r.commit(&proto.Commit{Step: 7, Generation: 3}, nil)
	if s, _ := r.read(7); len(s.Commits) != 0 || s.Opened != 3 {
		t.Errorf("%d commits, generation %d opened", len(s.Commits), s.Opened)
	}
}

// Commits that a coordinator missed come in pages that fit a message, in order, without a pause between them.
func TestMissedCommitsComeInPages(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, many := newReport("w1", "job"), slices.Repeat([]int32{200}, 1000)
		for step := range int64(keptCommits) {
			r.commit(&proto.Commit{Step: step + 1, Assignment: many, Metrics: make([]float64, 64)}, nil)
		}
		ctx, stop := context.WithCancel(t.Context())
		f := follower{ctx: ctx, statuses: make(chan *proto.Status)}
		done := make(chan error)
		go func() { done <- (&server{report: r, job: "job"}).Follow(&proto.FollowRequest{Job: "job"}, f) }()
		began, next := time.Now(), int64(1)
		for next <= keptCommits {
			s := <-f.statuses
			if size := wire.Size(s); size > 128<<10 {
				t.Fatalf("a status of %d bytes", size)
			}
			for _, c := range s.Commits {
				if c.Step != next {
					t.Fatalf("step %d was sent, want %d", c.Step, next)
				}
				next++
			}
		}
		if took := time.Since(began); took > 0 {
			t.Errorf("all pages took %v", took)
		}
		stop()
		<-done
	})
}

// The members of a world have its state before their first step is over, and say so: it may take long, and the others
// may die in it.
func TestAnAgreementIsReportedBeforeAStep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, gate := newCrew(t, 2), make(chan struct{})
		wait := func(*evenweave.Batch) { <-gate }
		a, b := c.start("a", 1, wait), c.start("b", 1, wait)
		c.publish(false, "a", "b")
		time.Sleep(time.Second) // virtual
		for _, h := range []*hand{a, b} {
			if s, _ := h.report.read(0); s.Agreed != 1 || s.Opened != 0 || s.Generation != 1 {
				t.Errorf("%s has agreed in generation %d and committed in %d before the first step of 1", h.ID,
					s.Agreed, s.Opened)
			}
		}
		close(gate)
		c.finish("a", "b")
	})
}
