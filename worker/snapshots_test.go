package worker

import (
	"bytes"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/state"
)

// due is a replica whose state, of step 5, is due.
func due(t *testing.T) (*replica, *device) {
	t.Helper()
	d := newDevice()
	r := heldBy(t, d)
	advance(t, r)
	return r, d
}

// advance commits a step.
func advance(t *testing.T, r *replica) {
	t.Helper()
	if err := r.update(0, []int32{int32(r.step)}, r.layout.Split(make([]float32, r.layout.Summed())), nil); err != nil {
		t.Fatal(err)
	}
}

// TestADueStateIsCopiedMeanwhile: while it is copied the next gradients may be computed, and nothing changes the state.
// Its memory is not used again until then, even if the state is durable already.
func TestADueStateIsCopiedMeanwhile(t *testing.T) {
	r, d := due(t)
	var first sync.Once
	entered, gate := make(chan struct{}), make(chan struct{})
	d.read = func(int) error {
		first.Do(func() { close(entered); <-gate })
		return nil
	}
	var tasks sync.WaitGroup
	r.keepDue(&tasks)
	<-entered
	if r.lacksDue() {
		t.Error("a state that is being copied would be copied again")
	}
	if !r.computing.TryLock() {
		t.Fatal("no gradients can be computed")
	}
	r.computing.Unlock()
	if r.unchanged.TryLock() {
		t.Fatal("the state may change")
	}
	copied := r.snapshots[5]
	r.verify(r.expected, 1)
	sealed := make(chan struct{})
	go func() { defer close(sealed); r.seal() }()
	r.acknowledge(5)
	if r.image() != nil {
		t.Error("memory that is written to is used again")
	}
	close(gate)
	<-sealed
	if err := r.refusals(); err != nil {
		t.Error(err)
	}
	tasks.Wait()
	if got := copied.state.Fingerprint(); got != r.expected {
		t.Errorf("the copy has fingerprint %s, the state %s", got, r.expected)
	}
}

// TestWhatIsNotTheDueStateIsNotOffered: one that could not be copied, or whose memory changed before or after that. It
// is named, and copied again.
func TestWhatIsNotTheDueStateIsNotOffered(t *testing.T) {
	for says, damage := range map[string]func(r *replica, d *device){
		"due state of step 5: reading tensor weights: the device is gone": func(r *replica, d *device) {
			d.read = func(int) error { return errDevice }
			keep(r)
			d.read = nil
		},
		"copy of the due state of step 5 has fingerprint": func(r *replica, d *device) {
			d.Weights()[3]++
			keep(r)
			d.Weights()[3]--
		},
		"memory has changed by itself": func(r *replica, _ *device) {
			keep(r)
			r.snapshots[5].state.Image[7] ^= 4
		},
	} {
		r, d := due(t)
		damage(r, d)
		r.verify(r.expected, 1)
		r.seal()
		if err := r.refusals(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v", says, err)
		}
		if held := r.due(); len(held) != 0 || !r.lacksDue() {
			t.Errorf("%q: it reports %v", says, held)
		}
		keep(r)
		r.verify(r.expected, 1)
		r.seal()
		if err := r.refusals(); err != nil {
			t.Error(err)
		}
		if s, err := r.at(t.Context(), 5); err != nil || s.Fingerprint() != r.expected || len(r.due()) != 1 {
			t.Errorf("%q: copied again, it reports %v and gives another state, or %v", says, r.due(), err)
		}
	}
}

// TestADueStateIsKeptAfterAHeal: a bit changes before the state is copied; the healed state is copied again.
func TestADueStateIsKeptAfterAHeal(t *testing.T) {
	r, d := due(t)
	right, err := r.at(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	d.Weights()[3]++
	keep(r)
	r.invalidate()
	if err := r.adopt(right.State); err != nil {
		t.Fatal(err)
	}
	var tasks sync.WaitGroup
	r.keepDue(&tasks)
	tasks.Wait()
	r.verify(r.expected, 1)
	r.seal()
	if held := r.due(); len(held) != 1 || !bytes.Equal(held[0].Sha256, right.SHA256[:]) || r.refusals() != nil {
		t.Errorf("it offers %v", held)
	}
}

// TestCopiesAreMadeInLentMemory: that of a state that is durable, once its reader has ended, and not before.
func TestCopiesAreMadeInLentMemory(t *testing.T) {
	r, _ := due(t)
	again, seen := 0, map[*byte]bool{}
	for range 100 {
		runtime.GC() // which leaves the memory alone
		keep(r)
		r.verify(r.expected, 1)
		held, end, err := r.lend(r.step, false, nil)
		if err != nil {
			t.Fatal(err)
		}
		lent := &held.Image[0]
		if seen[lent] {
			again++
		}
		seen[lent] = true
		r.acknowledge(r.step)
		advance(t, r)
		if keep(r); &r.snapshots[r.step].state.Image[0] == lent {
			t.Fatal("what a reader has is written to")
		}
		end()
		r.acknowledge(r.step)
		advance(t, r)
	}
	if again == 0 {
		t.Error("no memory is used again")
	}
}

// TestMemoryIsThereBeforeADueState: a little before its step, and for as long as steps go on towards it, however long
// they take in all. The other steps need none.
func TestMemoryIsThereBeforeADueState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &replica{layout: &state.Layout{Size: 5*touchBytes + 7}, large: true,
			job: job.Job{CheckpointEvery: 100,
				Spec: job.Spec{Samples: 10000, GlobalBatch: 1, MicroBatch: 1, Epochs: 1}}}
		kept := func() int {
			synctest.Wait()
			r.mu.Lock()
			defer r.mu.Unlock()
			return len(r.images)
		}
		for r.step = 1; r.step < 100; r.step++ {
			if r.prepare(); kept() != 0 != (r.step >= 100-soonDue) {
				t.Errorf("memory of %d states after step %d", kept(), r.step)
			}
			time.Sleep(imagesStay / 2) // virtual
		}
		if image := r.image(); len(image) != 5*touchBytes+7 {
			t.Errorf("the due state gets memory of %d bytes", len(image))
		}
		r.prepare()
		if time.Sleep(imagesStay + time.Second); kept() != 0 {
			t.Error("it is kept though no step goes on towards a due state")
		}
		r.step = 199
		r.order = []int64{100} // gives its memory back
		if r.prepare(); kept() != 0 {
			t.Error("memory is made beside that of a due state that is not durable")
		}
		r.order = nil
		r.end()
		if r.prepare(); kept() != 0 || r.preparing {
			t.Error("memory is made for a member that has ended")
		}
	})
}

// TestTrainingPreparesForDueStates.
func TestTrainingPreparesForDueStates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true // its states count as large
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3) // the state of step 5 is due
		r := a.replica
		r.mu.RLock()
		if len(r.images) != 1 {
			t.Errorf("memory of %d states before one is due", len(r.images))
		}
		r.mu.RUnlock()
		c.kill()
	})
}

// TestMemoryForCopiesIsKeptForAMinute without a use, and no more of it than copies that are taken while one is sent.
func TestMemoryForCopiesIsKeptForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, _ := due(t)
		for range 2 {
			for range 2 * minSnapshots {
				keep(r)
				advance(t, r)
			}
			r.acknowledge(r.step)
			r.mu.Lock()
			if len(r.images) != minSnapshots {
				t.Errorf("memory of %d copies is kept", len(r.images))
			}
			r.mu.Unlock()
			time.Sleep(imagesStay - time.Second) // virtual
		}
		time.Sleep(2 * time.Second)
		if r.image() != nil {
			t.Error("it is kept for longer")
		}
	})
}

// TestCopiesAreMadeInUnreadMemory: that of a state that is durable, unless a reader keeps it: its bytes stay as
// they are.
func TestCopiesAreMadeInUnreadMemory(t *testing.T) {
	r, _ := due(t)
	again, seen, read := 0, map[*byte]bool{}, map[*byte][]byte{}
	for i := range 100 {
		keep(r)
		r.verify(r.expected, 1)
		r.seal()
		image := r.snapshots[r.step].sealed.Image
		at := &image[0]
		if read[at] != nil {
			t.Fatal("what a reader has is written to")
		}
		if seen[at] {
			again++
		}
		seen[at] = true
		if i%2 == 0 {
			got, err := r.at(t.Context(), r.step)
			if err != nil || &got.Image[0] != at {
				t.Fatalf("another state is read, or %v", err)
			}
			read[at] = got.Image
		}
		r.acknowledge(r.step)
		advance(t, r)
	}
	if again == 0 {
		t.Error("no memory is used again")
	}
}
