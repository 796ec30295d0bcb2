package dataset

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"evenweave"
)

// checkSamples is the promise of every data set here: a sample has the same bytes whatever batch it is in, at whatever
// place and in whatever order, for several goroutines at once; padding is zero in all its bytes and of no weight.
func checkSamples(t *testing.T, d evenweave.Data) {
	t.Helper()
	n := min(d.Len(), 40)
	want := make([]string, n)
	for i := range want {
		want[i] = contentOf(t, d, &evenweave.Batch{Samples: []int32{int32(i)}})[0]
	}
	var lanes sync.WaitGroup
	for lane := range 3 {
		lanes.Go(func() {
			random := rand.New(rand.NewPCG(uint64(lane), 1))
			b := evenweave.Batch{}
			for range 20 {
				b.Samples = b.Samples[:0]
				for range 1 + random.IntN(9) {
					b.Samples = append(b.Samples, int32(random.IntN(n+1)-1))
				}
				got := contentOf(t, d, &b)
				for i, sample := range b.Samples {
					if sample == evenweave.Padding {
						continue
					}
					if got[i] != want[sample] {
						t.Errorf("sample %d at place %d of %v differs from the sample alone", sample, i, b.Samples)
						return
					}
				}
			}
		})
	}
	lanes.Wait()
	for _, bad := range []int32{-2, int32(d.Len()), math.MaxInt32} {
		if err := d.Load(&evenweave.Batch{Samples: []int32{bad}}); int(bad) != d.Len()-1 && err == nil {
			t.Errorf("sample %d of %d was loaded", bad, d.Len())
		}
	}
}

// contentOf loads a batch and returns what each sample holds, as text. It checks layout and padding.
func contentOf(t *testing.T, d evenweave.Data, b *evenweave.Batch) []string {
	t.Helper()
	if err := d.Load(b); err != nil {
		t.Error(err)
		return make([]string, len(b.Samples))
	}
	c := b.Content.(*Content)
	all := make([]string, len(b.Samples))
	for i, sample := range b.Samples {
		all[i] = fmt.Sprint(c.Weights[i])
		for _, f := range slices.Concat(c.Inputs, c.Labels) {
			if size, err := f.SampleBytes(); err != nil || len(f.Bytes) != size*len(b.Samples) {
				t.Errorf("%d bytes for %d samples of %d: %v", len(f.Bytes), len(b.Samples), size, err)
			}
			if sample == evenweave.Padding && bytes.ContainsFunc(f.Sample(i), func(r rune) bool { return r != 0 }) {
				t.Errorf("padding holds %x", f.Sample(i))
			}
			all[i] += fmt.Sprintf(" %s%v %x", f.Type, f.Shape, f.Sample(i))
		}
		if sample == evenweave.Padding && c.Weights[i] != 0 {
			t.Errorf("padding weighs %v", c.Weights[i])
		}
	}
	return all
}

func numbered(t *testing.T, n int) evenweave.Data {
	t.Helper()
	values, classes := make([]float32, 6*n), make([]int32, n)
	for i := range values {
		values[i] = float32(i) - 7.5
		classes[i/6] = int32(i / 6)
	}
	d, err := InMemory([]Flat{Of(values, 2, 3)}, []Flat{Of(classes), Of(classes, 1)})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestSamplesInMemory(t *testing.T) {
	checkSamples(t, numbered(t, 50))
	got := contentOf(t, numbered(t, 3), &evenweave.Batch{Samples: []int32{2, -1}})
	want := "1 float32[2 3] 000090400000b0400000d0400000f0400000084100001841 int32[] 02000000 int32[1] 02000000"
	if got[0] != want {
		t.Errorf("got %s, want %s", got[0], want)
	}
}

func TestEveryElementKeepsItsBytes(t *testing.T) {
	for _, c := range []struct {
		got  Flat
		want string
	}{
		{Of([]bool{true, false}), "bool 0100"},
		{Of([]uint8{1, 255}), "uint8 01ff"},
		{Of([]int32{-2}), "int32 feffffff"},
		{Of([]int64{-2}), "int64 feffffffffffffff"},
		{Of([]uint32{2}), "uint32 02000000"},
		{Of([]uint64{2}), "uint64 0200000000000000"},
		{Of([]float32{-0.5}), "float32 000000bf"},
		{Of([]float64{-0.5}), "float64 000000000000e0bf"},
	} {
		if got := fmt.Sprintf("%s %x", c.got.Type, c.got.Bytes); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

func TestMemoryIsReused(t *testing.T) {
	d := numbered(t, 10)
	b := evenweave.Batch{Samples: []int32{1, 2, 3}}
	contentOf(t, d, &b)
	first := &b.Content.(*Content).Inputs[0].Bytes[0]
	b.Samples = b.Samples[:2]
	contentOf(t, d, &b)
	if &b.Content.(*Content).Inputs[0].Bytes[0] != first {
		t.Error("a smaller batch got new memory")
	}
	b.Content = "another set's content"
	contentOf(t, d, &b)
}

func TestDigestsNameBytesTypesShapesAndOrder(t *testing.T) {
	seen := map[string]int{}
	for i, c := range [][2][]Flat{
		{{Of([]uint8{1, 2, 3, 4})}, {Of([]uint8{1, 2, 3, 4})}},
		{{Of([]uint8{1, 2, 3, 4})}, {Of([]uint8{1, 2, 4, 3})}},
		{{Of([]uint8{1, 2, 3, 4})}, nil},
		{{Of([]uint8{1, 2, 3, 4}), Of([]uint8{1, 2, 3, 4})}, nil},
		{{Of([]uint8{1, 2, 3, 4}, 2)}, nil},
		{{Of([]uint8{1, 2, 3, 4}, 2, 1)}, nil},
		{{Of([]int32{0x04030201})}, nil},
	} {
		d, err := InMemory(c[0], c[1])
		if err != nil {
			t.Fatal(err)
		}
		if other, ok := seen[d.Digest()]; ok {
			t.Errorf("sets %d and %d share a digest", i, other)
		}
		seen[d.Digest()] = i
		if again, err := InMemory(c[0], c[1]); err != nil || again.Digest() != d.Digest() {
			t.Errorf("set %d has another digest the second time: %v", i, err)
		}
	}
}

func TestImpossibleTensorsAreRefused(t *testing.T) {
	for want, c := range map[string][2][]Flat{
		"no inputs":                            {nil, {Of([]uint8{1})}},
		"input 0 has 3 bytes":                  {{Of([]uint8{1, 2, 3}, 2)}, nil},
		"label 0 has 2 samples, input 0 has 1": {{Of([]uint8{1})}, {Of([]uint8{1, 2})}},
		"0 samples":                            {{Of([]uint8{})}, nil},
		"shape [0]":                            {{Of([]uint8{1}, 0)}, nil},
		"shape [-1 -1]":                        {{Of([]uint8{1}, -1, -1)}, nil},
		"shape [65536 65536 65536 65536]":      {{Of([]uint8{1}, 65536, 65536, 65536, 65536)}, nil},
		`unknown element type "int7"`:          {{{"int7", nil, nil}}, nil},
	} {
		if _, err := InMemory(c[0], c[1]); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

// faulty is a source of one sample that gives what a test wants.
type faulty struct {
	weight float32
	err    error
}

func (faulty) Len() int                        { return 1 }
func (faulty) Digest() string                  { return "faulty" }
func (faulty) Layout() (inputs, labels []Flat) { return []Flat{{Type: evenweave.Uint8}}, nil }
func (f faulty) Read(int, [][]byte, [][]byte) (float32, error) {
	if f.weight == panics {
		panic("no such column")
	}
	return f.weight, f.err
}

const panics = 7 // a weight

func TestWhatASourceGetsWrongIsNamed(t *testing.T) {
	disk := errors.New("disk on fire")
	for want, f := range map[string]faulty{
		"sample 0: disk on fire": {1, disk}, "weight -1": {-1, nil}, "weight NaN": {float32(math.NaN()), nil},
		"weight +Inf": {float32(math.Inf(1)), nil}, "sample 0: panic: no such column": {panics, nil},
	} {
		d, err := New(f)
		if err != nil {
			t.Fatal(err)
		}
		err = d.Load(&evenweave.Batch{Samples: []int32{0}})
		if err == nil || !strings.Contains(err.Error(), want) || f.err != nil && !errors.Is(err, f.err) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}
