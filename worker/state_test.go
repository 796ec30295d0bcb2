package worker

import (
	"bytes"
	"context"
	"runtime"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/serving"
	"evenweave/internal/state"
	"evenweave/proto"
)

// watched is a model of several chunks that counts the reads of its state.
type watched struct {
	*example.Softmax
	values evenweave.Floats
	reads  int // of a chunk
	read   func(n int)
}

func (m *watched) Tensors() []evenweave.Tensor {
	return []evenweave.Tensor{{Name: "w", Type: evenweave.Float32, Shape: []int{len(m.values)},
		Role: evenweave.Trained}}
}

func (m *watched) Read(_ int, offset int64, p []byte) error {
	if len(p) > state.FingerprintBlock || offset%copyChunk == 0 && len(p) < state.FingerprintBlock { // no fingerprint's
		if m.reads++; m.read != nil {
			m.read(m.reads)
		}
	}
	return m.values.Read(offset, p)
}

func (m *watched) Write(_ int, offset int64, p []byte) error { return m.values.Write(offset, p) }

func (m *watched) Update([][]float32, int64) error { m.values[0]++; return nil }

// live is a member's replica whose state of step 21 is no due snapshot.
func live(t *testing.T) (*replica, *watched) {
	m := &watched{Softmax: example.NewSoftmax(), values: make(evenweave.Floats, 3*copyChunk/4+1)}
	for i := range m.values {
		m.values[i] = float32(i)
	}
	r := served(t, m).replica
	r.step = 21
	var err error
	if r.expected, err = r.fingerprint(); err != nil {
		t.Fatal(err)
	}
	return r, m
}

// TestPeersShareOneCopy: any number of members that fetch the live state cost one copy of it, which no later update
// changes.
func TestPeersShareOneCopy(t *testing.T) {
	r, m := live(t)
	first, err := r.at(t.Context(), 21)
	if err != nil || first.Fingerprint() != r.expected || len(first.Image) < 4*len(m.values) {
		t.Fatalf("the copy is another state: %v", err)
	}
	reads := m.reads
	for range 5 {
		if again, err := r.at(t.Context(), 21); err != nil || again != first || m.reads != reads {
			t.Fatalf("another copy, or an error: %v", err)
		}
	}
	if err := r.update(0, nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	if first.Image[3] != 0 {
		t.Error("an update changed the copy")
	}
	if _, err := r.at(t.Context(), 21); err == nil {
		t.Error("the state of a step that is over was given")
	}
	if next, err := r.at(t.Context(), 22); err != nil || next.Image[3] == 0 {
		t.Errorf("the next step: %v", err)
	}
}

// TestUpdateWaitsForNoCopy: an update goes before a peer's copy in progress, which is given up.
func TestUpdateWaitsForNoCopy(t *testing.T) {
	r, m := live(t)
	updated := make(chan error, 1)
	m.reads = 0
	m.read = func(n int) {
		if n != 2 {
			return
		}
		m.read = nil
		go func() { updated <- r.update(0, nil, nil, nil) }()
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

// TestACopyOutlivesItsCaller: a caller of a large state gets signs of life while it is copied. One that gives up and
// asks again gets the copy that is in the making, and not another one.
func TestACopyOutlivesItsCaller(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, m := live(t)
		s := &server{replica: r, job: "j", streams: serving.NewRanges("states", maxStates)}
		gate := make(chan struct{})
		m.reads, m.read = 0, func(int) { <-gate }
		first := &signed{blocks: blocks{take: make(chan struct{})}}
		close(first.take)
		var giveUp context.CancelFunc
		first.ctx, giveUp = context.WithTimeout(t.Context(), 15*time.Second) // virtual
		defer giveUp()
		ask := &proto.StateRequest{Job: s.job, Step: 21, Quick: true}
		if err := s.State(ask, first); err == nil || first.signs < 10 || first.bytes > 0 {
			t.Errorf("%d signs of life, %d bytes, %v", first.signs, first.bytes, err)
		}
		close(gate)
		again := &signed{blocks: blocks{ctx: t.Context(), take: first.take}}
		if err := s.State(ask, again); err != nil || int64(again.bytes) <= r.layout.Size {
			t.Errorf("asked again: %d bytes, %v", again.bytes, err)
		}
		if m.reads > 4 {
			t.Errorf("a state of 4 chunks was copied by %d reads", m.reads)
		}
	})
}

// TestACopyForPeersEndsWithItsMember.
func TestACopyForPeersEndsWithItsMember(t *testing.T) {
	r, m := live(t)
	m.reads = 0
	m.read = func(int) {
		m.read = nil
		go r.end()
		for r.mu.TryRLock() { // until it waits for this chunk
			r.mu.RUnlock()
			runtime.Gosched()
		}
	}
	if _, err := r.at(t.Context(), 21); err == nil || m.reads > 1 {
		t.Errorf("a copy for a peer went on for %d chunks, %v", m.reads, err)
	}
	if _, err := r.at(t.Context(), 21); err == nil {
		t.Error("a member that has ended begins a copy")
	}
}

// signed counts signs of life.
type signed struct {
	blocks
	signs int
}

func (s *signed) Send(b *proto.Block) error {
	if len(b.Data) == 0 {
		s.signs++
	}
	return s.blocks.Send(b)
}

// soon is for copies that are about to be there.
func soon(ready <-chan struct{}) error { <-ready; return nil }

// TestDueSnapshotsAreBounded: due states that no coordinator saves take a bounded number of bytes, and the newest stay.
func TestDueSnapshotsAreBounded(t *testing.T) {
	for size, want := range map[int64]int{1: 32, 1 << 20: 32, 306 << 20: 3, 1200 << 20: 2, 1 << 40: 2} {
		if got := mostSnapshots(size); got != want {
			t.Errorf("%d snapshots of %d bytes, expected %d", got, size, want)
		}
	}
	r, _ := live(t)
	for r.step = 100; r.step < 100+2*maxSnapshots; r.step++ {
		keep(r)
	}
	if n := len(r.order); n != maxSnapshots || len(r.snapshots) != n || r.order[n-1] != r.step-1 {
		t.Errorf("%d snapshots, up to step %d", n, r.order[n-1])
	}
}

// TestACopyByPartsIsWhole: however many lanes copy the live state, the copy has each of its bytes.
func TestACopyByPartsIsWhole(t *testing.T) {
	r := served(t, example.NewSoftmax()).replica
	want := make([]byte, r.layout.Size)
	for i := range r.live.Exponents {
		r.live.Exponents[i] = int32(i) - 3
	}
	if err := r.layout.ReadImage(r.live, 0, want); err != nil {
		t.Fatal(err)
	}
	for lanes := 1; lanes <= 7; lanes++ {
		r.scratch = make([][]byte, lanes)
		image := bytes.Repeat([]byte{1}, len(want)) // of a snapshot before
		if err := r.copyInto(image); err != nil || !bytes.Equal(image, want) {
			t.Errorf("by %d lanes: another state, or %v", lanes, err)
		}
	}
}
