package worker

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/internal/exact"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/internal/transfer"
	"evenweave/proto"
)

// TestRoomIsMadeForASpare: the copy waits for its memory, which is made again for the next one. Nothing is kept, nor
// made, without a spare.
func TestRoomIsMadeForASpare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newUpdateLog(3*touchBytes + 5)
		l.room.words = touchBytes
		for range 2 {
			ctx, leave := context.WithCancel(t.Context())
			gone := make(chan struct{})
			go func() {
				defer close(gone)
				_ = l.send(ctx, func(*proto.Update) error { return nil })
			}()
			if l.begin(1, state.Fingerprint{Hi: 1}) != nil {
				t.Fatal("a copy is begun before there is memory for it")
			}
			time.Sleep(longestRest * 20) // virtual
			c := l.begin(1, state.Fingerprint{Hi: 1})
			if c == nil || len(c.image) != 3*touchBytes+5 {
				t.Fatalf("a spare waits, and there is no memory for the copy: %v", c)
			}
			for i := range unusedBuffers {
				if b := l.takeBuffer(); len(b) != touchBytes {
					t.Errorf("buffer %d has %d words", i, len(b))
				}
			}
			if l.takeBuffer() != nil || l.room.takeImage() != nil {
				t.Error("there is more memory than for one copy and the steps after it")
			}
			close(c.taken)
			leave()
			<-gone
			l.keepsNothing(t)
		}
		l.end()
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.readers[&logReader{}] = true; l.hasRoom() || l.room.stage != missing {
			t.Error("memory is made for a member that has ended")
		}
	})
}

// TestTheTrainingRestsFromMakingRoom: a piece of memory is followed by a rest, however long the piece took, but not for
// ever; without a spare it is the last one.
func TestTheTrainingRestsFromMakingRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newUpdateLog(0)
		rests := func(took time.Duration, goesOn bool, want time.Duration) {
			t.Helper()
			began := time.Now()
			if got := l.rest(took); got != goesOn || time.Since(began) != want {
				t.Errorf("after %v: goes on: %v, after %v, want %v", took, got, time.Since(began), want)
			}
		}
		l.room.begun = time.Now()
		rests(time.Millisecond, false, 0)
		reader := &logReader{updateLog: l}
		if err := reader.join(); err != nil {
			t.Fatal(err)
		}
		rests(time.Millisecond, true, restTimes*time.Millisecond)
		rests(time.Minute, true, longestRest)
		time.Sleep(gentleFor) // virtual
		rests(time.Millisecond, true, 0)
		reader.leave()
		rests(time.Millisecond, false, 0)
	})
	p := make([]int64, touchBytes) // eight pieces
	for i := range p {
		p[i] = 1
	}
	pieces := 0
	if touch(p, func(time.Duration) bool { pieces++; return pieces < 3 }) || p[3*touchBytes/8-1] != 0 ||
		p[3*touchBytes/8] != 1 {
		t.Error("it does not end with the third piece")
	}
	if !touch(p, func(time.Duration) bool { return true }) || p[len(p)-1] != 0 {
		t.Error("it ends early")
	}
}

// asked is a context that ends when it was asked so often.
type asked struct {
	context.Context
	left int
}

func (a *asked) Err() error {
	if a.left--; a.left >= 0 {
		return nil
	}
	return context.Canceled
}

// TestStoppingWaitsForNoMemory: a world that uses a spare does not wait until the spare has all the memory for a state
// and for the words of a step.
func TestStoppingWaitsForNoMemory(t *testing.T) {
	r := &replica{layout: &state.Layout{Size: 5 * touchBytes}, blocks: exact.NewBlocks([]int{touchBytes})}
	for _, pieces := range []int{3, 7} { // in the state, in the words
		ctx := &asked{t.Context(), pieces}
		if newAhead(ctx, r) != nil || ctx.left != -1 {
			t.Errorf("it goes on after %d pieces, by %d", pieces, -1-ctx.left)
		}
	}
	if a := newAhead(t.Context(), r); len(a.image) != 5*touchBytes || len(a.words) == 0 {
		t.Error("it is not whole")
	}
}

// TestAReaderThatLeavesWantsNoCopy: the member makes none for it, while another spare, which has one, reads on.
func TestAReaderThatLeavesWantsNoCopy(t *testing.T) {
	l := newUpdateLog(0)
	reads, waits := &logReader{updateLog: l, passed: 5}, &logReader{updateLog: l, passed: -1}
	also := &logReader{updateLog: l, passed: -1}
	for _, r := range []*logReader{reads, waits, also} {
		if err := r.join(); err != nil {
			t.Fatal(err)
		}
	}
	l.wanted = true
	if waits.leave(); !l.wanted {
		t.Error("one that waits still is forgotten")
	}
	if also.leave(); l.wanted || l.begin(6, state.Fingerprint{}) != nil {
		t.Error("a copy is made that no spare waits for")
	}
}

// TestASpareKeepsNoFetchedState: what an opening has fetched is of use to the next opening, and to none without this
// member.
func TestASpareKeepsNoFetchedState(t *testing.T) {
	l := &Loop{ID: "a", replica: &replica{}, report: newReport("a", "job"), Observer: unobserved{}}
	l.replica.partial.Store(&transfer.Assembly{})
	if l.rest(&job.World{Peers: []job.Peer{{ID: "a"}}}); l.replica.partial.Load() == nil {
		t.Error("a member of a world has lost it")
	}
	if l.rest(&job.World{Peers: []job.Peer{{ID: "b"}}}); l.replica.partial.Load() != nil {
		t.Error("a member that no world uses keeps it")
	}
}

// TestARefusedTryKeepsItsMemory for the next one.
func TestARefusedTryKeepsItsMemory(t *testing.T) {
	memory := &ahead{}
	c := &catchUp{ahead: memory, arrivals: make(chan arrival), cancel: func() {}}
	close(c.arrivals)
	l := &Loop{catching: c}
	if l.stopCatchUp(); l.ahead != memory || l.catching != nil {
		t.Error("it is lost")
	}
}
