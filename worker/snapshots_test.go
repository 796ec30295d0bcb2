package worker

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
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

// TestADueStateIsCopiedMeanwhile: while it is copied the next gradients may be computed, and nothing hashes or changes
// the state. Its memory is not used again until then, even if the state is durable already.
func TestADueStateIsCopiedMeanwhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
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
		found := make(chan error, 1)
		go func() {
			f, err := r.found()
			if err == nil && f != r.expected {
				err = errors.New("another fingerprint")
			}
			found <- err
		}()
		copied := r.snapshots[5]
		r.verify(r.expected, 1)
		go r.seal()
		r.acknowledge(5)
		synctest.Wait()
		select {
		case err := <-found:
			t.Fatalf("the state is hashed before it is copied: %v", err)
		default:
		}
		if r.images.Get() != nil {
			t.Error("memory that is written to is used again")
		}
		close(gate)
		if err := <-found; err != nil {
			t.Error(err)
		}
		tasks.Wait()
		if got := copied.state.Fingerprint(); got != r.expected {
			t.Errorf("the copy has fingerprint %s, the state %s", got, r.expected)
		}
	})
}

// TestADueStateThatCannotBeCopied fails the next step by name, and is copied again.
func TestADueStateThatCannotBeCopied(t *testing.T) {
	r, d := due(t)
	d.read = func(int) error { return errDevice }
	var tasks sync.WaitGroup
	r.keepDue(&tasks)
	tasks.Wait()
	d.read = nil
	if _, err := r.found(); !errors.Is(err, errDevice) || !strings.Contains(err.Error(), "the due state of step 5") {
		t.Errorf("the next fingerprint: %v", err)
	}
	r.verify(r.expected, 1)
	r.seal()
	if held := r.due(); len(held) != 0 || !r.lacksDue() {
		t.Errorf("it reports %v", held)
	}
	r.keepDue(&tasks)
	r.verify(r.expected, 1)
	r.seal()
	if held := r.due(); len(held) != 1 || held[0].Step != 5 {
		t.Errorf("it reports %v", held)
	}
	if _, err := r.found(); err != nil {
		t.Error(err)
	}
}

// TestCopiesAreMadeInUnreadMemory: that of a state that is durable, unless a reader had it: its bytes stay as
// they are.
func TestCopiesAreMadeInUnreadMemory(t *testing.T) {
	r, _ := due(t)
	again, seen, read := 0, map[*byte]bool{}, map[*byte][]byte{}
	for i := range 100 { // a collection of garbage may take the memory
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
