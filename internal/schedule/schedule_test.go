package schedule

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

func TestPlanValidate(t *testing.T) {
	good := Plan{Seed: 1, Samples: 60000, GlobalBatch: 128, MicroBatch: 16}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	if v, s := good.MicroBatches(), good.StepsPerEpoch(); v != 8 || s != 469 {
		t.Errorf("V %d, steps per epoch %d: expected 8 and 469", v, s)
	}
	if epoch, within := good.Position(469); epoch != 1 || within != 0 {
		t.Errorf("position of step 469: %d, %d", epoch, within)
	}
	for name, p := range map[string]Plan{
		"training samples": {GlobalBatch: 128, MicroBatch: 16},
		"global batch 0":   {Samples: 10, MicroBatch: 16},
		"micro-batch 0":    {Samples: 10, GlobalBatch: 16},
		"does not divide":  {Samples: 10, GlobalBatch: 16, MicroBatch: 5},
		"larger micro":     {Samples: 10, GlobalBatch: 1 << 20, MicroBatch: 1},
	} {
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%+v: %v: expected an error about %q", p, err, name)
		}
	}
}

// The golden values pin the numerics: a change here changes every run that was ever made.
func TestKeyAndOrderAreSpecified(t *testing.T) {
	if got := evenweave.Key(1, evenweave.PurposeDropout, 2, 3); got != goldenKey {
		t.Errorf("Key: %#x", got)
	}
	if got := Order(1, 0, 10); !slices.Equal(got, goldenOrder) {
		t.Errorf("Order: %v", got)
	}
	// SplitMix64's published first outputs for the seed 1234567.
	g := evenweave.NewGenerator(1234567)
	for _, want := range []uint64{6457827717110365317, 3203168211198807973, 9817491932198370423} {
		if got := g.Uint64(); got != want {
			t.Errorf("SplitMix64: %d, expected %d", got, want)
		}
	}
}

const goldenKey = 0xd0041a9dee9f104c

var goldenOrder = []int32{0, 2, 8, 3, 1, 9, 4, 6, 5, 7}

func TestKeysDiffer(t *testing.T) {
	seen := map[uint64]bool{}
	n := 0
	for seed := range uint64(4) {
		for purpose := range uint64(4) {
			for a := range uint64(20) {
				for b := range uint64(20) {
					seen[evenweave.Key(seed, purpose, a, b)] = true
					n++
				}
			}
		}
	}
	if len(seen) != n {
		t.Errorf("%d different keys of %d", len(seen), n)
	}
}

func TestOrderIsUniform(t *testing.T) {
	const samples, epochs = 12, 12000
	var counts [samples][samples]int
	for e := range int64(epochs) {
		for place, s := range Order(9, e, samples) {
			counts[place][s]++
		}
	}
	// Chi-squared with 121 degrees of freedom is below 190 except for one seed in 20,000.
	chi, expected := 0.0, float64(epochs)/samples
	for _, row := range counts {
		for _, c := range row {
			chi += (float64(c) - expected) * (float64(c) - expected) / expected
		}
	}
	if chi > 190 {
		t.Errorf("chi-squared %.1f", chi)
	}
}

// Each sample of each epoch is used exactly once, padding comes only at an epoch's end, and the slices do not depend on
// the caller or the order of calls.
func TestSamplerUsesEachSampleOnce(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		micro := 1 + r.IntN(9)
		p := Plan{Seed: r.Uint64(), Samples: 1 + r.IntN(300), MicroBatch: micro, GlobalBatch: micro * (1 + r.IntN(7))}
		sampler, ledger := NewSampler(p), NewLedger(p.Samples)
		dst := make([]int32, micro)
		for step := range 3 * p.StepsPerEpoch() {
			epoch, _ := p.Position(step)
			for _, v := range r.Perm(p.MicroBatches()) {
				NewSampler(p).MicroBatch(step, v, dst)
				want := slices.Clone(dst)
				sampler.MicroBatch(step, v, dst)
				if !slices.Equal(dst, want) {
					t.Fatalf("%+v: step %d micro-batch %d: %v and %v", p, step, v, dst, want)
				}
				if i := slices.Index(dst, evenweave.Padding); i >= 0 && slices.Max(dst[i:]) != evenweave.Padding {
					t.Fatalf("padding before a sample: %v", dst)
				}
				if ledger.Epochs() != epoch { // only padding may follow the last sample of an epoch
					if slices.Max(dst) != evenweave.Padding {
						t.Fatalf("sample after the epoch's end: %v", dst)
					}
					continue
				}
				if err := ledger.Commit(epoch, dst); err != nil {
					t.Fatalf("%+v: step %d: %v", p, step, err)
				}
			}
		}
		if ledger.Epochs() != 3 || ledger.Used() != 0 {
			t.Fatalf("%+v: %d epochs, %d used", p, ledger.Epochs(), ledger.Used())
		}
	}
}

func TestSamplerIsSafeForConcurrentUse(t *testing.T) {
	p := Plan{Seed: 3, Samples: 1000, GlobalBatch: 64, MicroBatch: 8}
	s := NewSampler(p)
	done := make(chan []int32)
	for range 4 {
		go func() {
			var all []int32
			for step := range 3 * p.StepsPerEpoch() {
				dst := make([]int32, 8)
				s.MicroBatch(step, int(step)%8, dst)
				all = append(all, dst...)
			}
			done <- all
		}()
	}
	first := <-done
	for range 3 {
		if !slices.Equal(first, <-done) {
			t.Error("goroutines saw different samples")
		}
	}
}

func TestAssignmentEven(t *testing.T) {
	for v := range 40 {
		for n := 1; n < 20; n++ {
			checkAssignment(t, Even(v, n), v)
			if d := Even(v, n); slices.Max(d)-slices.Min(d) > 1 {
				t.Errorf("Even(%d, %d) = %v", v, n, d)
			}
		}
	}
}

func checkAssignment(t *testing.T, d Assignment, v int) {
	t.Helper()
	next := 0
	for rank := range d {
		lo, hi := d.Range(rank)
		if lo != next || hi < lo {
			t.Fatalf("assignment %v: rank %d has %d..%d", d, rank, lo, hi)
		}
		next = hi
	}
	if next != v {
		t.Fatalf("assignment %v covers %d of %d", d, next, v)
	}
}

func TestNextAssignment(t *testing.T) {
	for _, c := range []struct {
		name  string
		prev  Assignment
		nanos []int64
		want  Assignment
	}{
		{"equal ranks stay", Assignment{4, 4}, []int64{400, 410}, Assignment{4, 4}},
		{"a rank at a quarter of the speed", Assignment{4, 4}, []int64{400, 1600}, Assignment{7, 1}},
		{"never less than one", Assignment{4, 4}, []int64{4, 4000000}, Assignment{7, 1}},
		{"less than a tenth to gain", Assignment{20, 20}, []int64{20000, 21900}, Assignment{20, 20}},
		{"no time known", Assignment{4, 4}, []int64{0, 1600}, Assignment{4, 4}},
		{"a rank without time keeps its share", Assignment{4, 2, 2}, []int64{4000, 0, 200}, Assignment{1, 2, 5}},
		{"more ranks than micro-batches", Assignment{1, 1, 0}, []int64{100, 900, 0}, Assignment{1, 1, 0}},
		{"no overflow", Assignment{4, 4}, []int64{math.MaxInt64, math.MaxInt64 / 8}, Assignment{1, 7}},
		{"alone", Assignment{8}, []int64{100}, Assignment{8}},
		{"nothing", Assignment{}, nil, Assignment{}},
		{"times of another world", Assignment{4, 4}, []int64{1, 2, 3}, Assignment{4, 4}},
	} {
		if got := Next(c.prev, c.nanos); !slices.Equal(got, c.want) {
			t.Errorf("%s: Next(%v, %v) = %v, expected %v", c.name, c.prev, c.nanos, got, c.want)
		}
	}
}

// For any times the assignment covers V, keeps one micro-batch for each rank, is never predicted to be slower, is
// within one micro-batch of the ideal, and stays the same at constant speeds.
func TestNextAssignmentProperties(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 5000 {
		n := 1 + r.IntN(8)
		v := n + r.IntN(60)
		speed := make([]int64, n)
		for i := range speed {
			speed[i] = 1 + r.Int64N(1<<(1+r.IntN(40)))
		}
		times := func(d Assignment) []int64 {
			nanos := make([]int64, n)
			for i := range nanos {
				nanos[i] = int64(d[i]) * speed[i]
			}
			return nanos
		}
		d := Even(v, n)
		next := Next(d, times(d))
		checkAssignment(t, next, v)
		if slices.Min(next) < 1 {
			t.Fatalf("%v: a rank has nothing", next)
		}
		if makespan(next, speed) > makespan(d, speed) {
			t.Fatalf("%v is slower than %v at %v", next, d, speed)
		}
		// No single move could gain more than the tenth that hysteresis leaves.
		best := makespan(next, speed)
		for from := range next {
			for to := range next {
				if next[from] > 1 && from != to {
					moved := slices.Clone(next)
					moved[from]--
					moved[to]++
					if got := makespan(moved, speed); got < best-best/10-1 {
						t.Fatalf("%v at %v: moving one gives %v, %d instead of %d", next, speed, moved, got, best)
					}
				}
			}
		}
		if again := Next(next, times(next)); !slices.Equal(again, next) {
			t.Fatalf("%v moves on to %v at constant speeds %v", next, again, speed)
		}
	}
}

func FuzzNextAssignment(f *testing.F) {
	f.Add([]byte{1, 2, 3}, int64(5), int64(math.MaxInt64), int64(-1))
	f.Fuzz(func(t *testing.T, counts []byte, a, b, c int64) {
		d, v := Assignment{}, 0
		nanos := []int64{}
		for i, n := range counts {
			d, v = append(d, int(n)), v+int(n)
			nanos = append(nanos, []int64{a, b, c}[i%3])
		}
		next := Next(d, nanos)
		checkAssignment(t, next, v)
		for i := range next {
			if d[i] > 0 && next[i] < 1 {
				t.Fatalf("Next(%v, %v) = %v", d, nanos, next)
			}
		}
	})
}

func BenchmarkOrder(b *testing.B) {
	for b.Loop() {
		Order(1, 0, 60000)
	}
}
