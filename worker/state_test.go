package worker

import (
	"runtime"
	"slices"
	"testing"

	"evenweave/internal/example"
)

// watched is a model of several chunks that tells how often its state was read.
type watched struct {
	*example.Softmax
	values []float32
	reads  int
	read   func(n int)
}

func (m *watched) State() []float32 {
	if m.reads++; m.read != nil {
		m.read(m.reads)
	}
	return m.values
}

func (m *watched) Update([]float32, int64) error { m.values[0]++; return nil }

// live is a member's replica whose state of step 21 is no due snapshot.
func live(t *testing.T) (*replica, *watched) {
	m := &watched{Softmax: example.NewSoftmax(), values: make([]float32, 3*copyChunk+1)}
	for i := range m.values {
		m.values[i] = float32(i)
	}
	r := served(t, m).replica
	r.step = 21
	r.print = r.live().Fingerprint()
	return r, m
}

// TestPeersShareOneCopy: any number of members that fetch the live state cost one copy of it, which no later update changes.
func TestPeersShareOneCopy(t *testing.T) {
	r, m := live(t)
	first, err := r.at(t.Context(), 21)
	if err != nil || !slices.Equal(first.Values, m.values) || first.Fingerprint() != r.print {
		t.Fatalf("the copy is another state: %v", err)
	}
	reads := m.reads
	for range 5 {
		if again, err := r.at(t.Context(), 21); err != nil || again != first || m.reads != reads {
			t.Fatalf("another copy, or an error: %v", err)
		}
	}
	if err := r.update(0, nil, nil); err != nil {
		t.Fatal(err)
	}
	if first.Values[0] != 0 {
		t.Error("an update changed the copy")
	}
	if _, err := r.at(t.Context(), 21); err == nil {
		t.Error("the state of a step that is over was given")
	}
	if next, err := r.at(t.Context(), 22); err != nil || next.Values[0] != 1 {
		t.Errorf("the next step: %v", err)
	}
}

// TestUpdateWaitsForNoCopy: an update that is due while a peer's copy is made goes first, and the copy is given up.
func TestUpdateWaitsForNoCopy(t *testing.T) {
	r, m := live(t)
	updated := make(chan error, 1)
	m.reads = 0
	m.read = func(n int) {
		if n != 2 {
			return
		}
		m.read = nil
		go func() { updated <- r.update(0, nil, nil) }()
		for r.mu.TryRLock() { // until the update waits for this chunk
			r.mu.RUnlock()
			runtime.Gosched()
		}
	}
	if _, err := r.at(t.Context(), 21); err == nil {
		t.Error("the copy was made while an update waited, or of two states")
	}
	if err := <-updated; err != nil || m.reads < 3 {
		t.Errorf("update: %v", err)
	}
}
