package worker

import (
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"

	"evenweave"
	"evenweave/internal/exact"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/state"
)

var errDevice = errors.New("the device is gone")

// device is a model of several tensors of several types whose memory fails when the test says so.
type device struct {
	*example.Softmax
	extra       []byte // of the second and third tensor
	read, write func(tensor int) error
}

func newDevice() *device { return &device{Softmax: example.NewSoftmax(), extra: make([]byte, 13)} }

func (d *device) Tensors() []evenweave.Tensor {
	return append(d.Softmax.Tensors(),
		evenweave.Tensor{Name: "count", Type: evenweave.Int64, Role: evenweave.Kept},
		evenweave.Tensor{Name: "flags", Type: evenweave.Bool, Shape: []int{5}, Role: evenweave.Kept})
}

func (d *device) memory(tensor int) []byte {
	if tensor == 1 {
		return d.extra[:8]
	}
	return d.extra[8:]
}

func (d *device) Read(tensor int, offset int64, p []byte) error {
	if d.read != nil {
		if err := d.read(tensor); err != nil {
			return err
		}
	}
	if tensor == 0 {
		return d.Softmax.Read(0, offset, p)
	}
	copy(p, d.memory(tensor)[offset:])
	return nil
}

func (d *device) Write(tensor int, offset int64, p []byte) error {
	if d.write != nil {
		if err := d.write(tensor); err != nil {
			return err
		}
	}
	if tensor == 0 {
		return d.Softmax.Write(0, offset, p)
	}
	copy(d.memory(tensor)[offset:], p)
	return nil
}

func (d *device) Update(mean [][]float32, step int64) error {
	d.extra[0]++
	return d.Softmax.Update(mean, step)
}

// heldBy is a replica of a device at step 4, of which step 5 is due.
func heldBy(t *testing.T, d *device) *replica {
	t.Helper()
	j := job.Job{Spec: job.Spec{Samples: 300, Seed: 1, GlobalBatch: 32, MicroBatch: 4, Epochs: 1, Steps: 20}}
	j.CheckpointEvery = 5
	r, err := newReplica(j, d)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(r.layout, 300)
	s.Step = 4
	if err := r.adopt(s); err != nil {
		t.Fatal(err)
	}
	return r
}

// A state that could not be written whole is none: it is not given away, and the member obtains it again.
func TestAStateHalfWrittenIsNone(t *testing.T) {
	d := newDevice()
	r := heldBy(t, d)
	other := state.New(r.layout, 300)
	other.Step, other.Image[0] = 9, 1
	d.write = func(tensor int) error {
		if tensor == 2 {
			return errDevice
		}
		return nil
	}
	if err := r.adopt(other); !errors.Is(err, errDevice) || !strings.Contains(err.Error(), "flags") || r.known {
		t.Fatalf("known %v after %v", r.known, err)
	}
	for _, step := range []int64{4, 9} {
		if s, err := r.at(t.Context(), step); err == nil {
			t.Errorf("step %d is given: %+v", step, s)
		}
	}
	d.write = nil
	if err := r.adopt(other); err != nil || !r.known || r.expected != other.Fingerprint() {
		t.Errorf("known %v after %v", r.known, err)
	}
}

// A device that cannot be read has no fingerprint; if that is so after an update, the state has none that anything
// could agree with.
func TestADeviceThatCannotBeRead(t *testing.T) {
	d := newDevice()
	r := heldBy(t, d)
	d.read = func(int) error { return errDevice }
	if f, err := r.fingerprint(); !errors.Is(err, errDevice) {
		t.Errorf("fingerprint %s, %v", f, err)
	}
	mean := r.layout.Split(make([]float32, r.layout.Summed()))
	d.read = func(int) error { // once the update is made
		if d.extra[0] == 1 {
			return errDevice
		}
		return nil
	}
	if err := r.update(0, []int32{1}, mean, nil); !errors.Is(err, errDevice) || r.expected != (state.Fingerprint{}) {
		t.Fatalf("fingerprint %s after %v", r.expected, err)
	}
	d.read = nil
	g := &generation{world: job.World{Peers: make([]job.Peer, 1)}, replica: r}
	if slots, err := g.known(); err != nil || slots[0] != 0 || r.known {
		t.Errorf("it reports %v, %v of a state that it could not read", slots, err)
	}
}

// TestAnUpdateThatFailsHalfWay: what it leaves is no state; the member takes its peers', or the checkpoint.
func TestAnUpdateThatFailsHalfWay(t *testing.T) {
	want := calm(t, steps)
	for _, at := range []int64{7, steps - 1} {
		for _, members := range [][]string{{"a"}, {"a", "b"}, {"a", "b", "c"}} {
			synctest.Test(t, func(t *testing.T) {
				c := newCrew(t, steps)
				failures := 0
				for _, id := range members {
					c.start(id, 1, nil)
				}
				c.members["a"].model.breaks = func(step int64) error {
					if step != at || failures > 0 {
						return nil
					}
					failures++
					return errors.New("no memory is left")
				}
				c.publish(false, members...)
				if got := c.finish(members...); got != want || failures != 1 {
					t.Errorf("%v, step %d: ends with %s, a calm run with %s; %d updates have failed", members, at, got,
						want, failures)
				}
			})
		}
	}
}

// A flipped bit of any tensor, of whatever type and role, is noticed before the next update.
func TestAFlipInAnyTensorIsNoticed(t *testing.T) {
	d := newDevice()
	r := heldBy(t, d)
	d.write = func(int) error {
		if r.computing.TryLock() {
			t.Error("a bit is flipped while gradients may be computed")
			r.computing.Unlock()
		}
		return nil
	}
	for at := range r.layout.Size {
		for bit := range 8 {
			where, err := r.flip(at, bit)
			if f, failed := r.fingerprint(); err != nil || failed != nil || f == r.expected {
				t.Fatalf("%s: not noticed: %v, %v", where, err, failed)
			}
			if _, err := r.flip(at, bit); err != nil {
				t.Fatal(err)
			}
		}
	}
	if f, err := r.fingerprint(); err != nil || f != r.expected {
		t.Errorf("flipped back, it has another fingerprint: %v", err)
	}
}

// Nothing writes into a model that computes gradients.
func TestAModelThatComputesIsNotWrittenTo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		var a *hand
		a = c.start("a", 2, func(*evenweave.Batch) {
			if a.replica.computing.TryLock() {
				t.Error("it may be written to")
				a.replica.computing.Unlock()
			}
		})
		c.publish(false, "a")
		c.finish("a")
	})
}

// What cannot be summed ends the job by name.
func TestVerdictsNameWhatIsWrong(t *testing.T) {
	plan := job.Spec{Samples: 300, GlobalBatch: 10, MicroBatch: 5}.Plan()
	n := names{func(int) string { return "w[0]" }, []string{"accuracy"}}
	for says, sums := range map[string]evenweave.Sums{
		"the loss, summed over its samples, is beyond 2097152":  {Loss: 3e6, Weight: 4, Metrics: []int64{1}},
		"2 micro-batches may each add":                          {Loss: 1e300, Weight: 4, Metrics: []int64{1}},
		"0 of 2 (samples 0, 5, 9, 2, ...): the loss is not fin": {Loss: math.Inf(1), Weight: 4, Metrics: []int64{1}},
		"the weight is negative":                                {Weight: -1, Metrics: []int64{1}},
		"the weight is negative or beyond 4503599627370496":     {Weight: 1 << 60, Metrics: []int64{1}},
		"the metric accuracy is":                                {Weight: 4, Metrics: []int64{1 << 62}},
		"step 8: the weights of all":                            {Metrics: []int64{0}},
	} {
		b := newBuffer(exact.NewBlocks([]int{1}), 1, 1, plan).of(1)
		for v := range 2 {
			b.add(&evenweave.Batch{MicroBatch: v, Samples: []int32{0, 5, 9, 2, 1}}, []float32{1}, []int32{0}, sums)
		}
		found, _ := b.nonfinite(n)
		if err := b.check(7); err != nil {
			found = err.Error()
		}
		if !strings.Contains(found, says) {
			t.Errorf("%+v: %q, expected %q", sums, found, says)
		}
	}
}
