package evaluate

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the tables in testdata again")

var clothes = []string{"T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
	"Bag", "Ankle boot"}

// numbered returns n images of four bytes that hold their own number, and their labels.
func numbered(n int) (images []byte, labels []uint8) {
	for i := range n {
		images = binary.LittleEndian.AppendUint32(images, uint32(i))
		labels = append(labels, uint8(i%7%len(clothes)))
	}
	return images, labels
}

// scored is a classifier of numbered images: mostly right, with any scores.
func scored(image int, labels []uint8) []float32 {
	random := rand.New(rand.NewPCG(uint64(image), 9))
	scores := make([]float32, len(clothes))
	for c := range scores {
		scores[c] = float32(random.NormFloat64() * 3)
	}
	scores[labels[image]] += 6
	return scores
}

func TestEachImageExactlyOnce(t *testing.T) {
	for _, n := range []int{1, BatchSize - 1, BatchSize, BatchSize + 1, 2017, 10000} {
		images, labels := numbered(n)
		seen := make([]int, n)
		got, err := Evaluate(t.Context(), func(batch []byte, rows int, dst []float32) error {
			if len(batch) != 4*rows || len(dst) != rows*len(clothes) || rows > BatchSize {
				t.Fatalf("%d bytes and %d scores for %d images", len(batch), len(dst), rows)
			}
			for i := range rows {
				image := int(binary.LittleEndian.Uint32(batch[4*i:]))
				seen[image]++
				copy(dst[i*len(clothes):], scored(image, labels))
			}
			return nil
		}, images, 4, labels, clothes)
		if err != nil {
			t.Fatal(err)
		}
		for i, times := range seen {
			if times != 1 {
				t.Fatalf("image %d of %d was used %d times", i, n, times)
			}
		}
		compare(t, got, labels)
	}
}

// compare checks r against the definitions, in full.
func compare(t *testing.T, r Result, labels []uint8) {
	t.Helper()
	right, loss := 0, 0.0
	var mistakes []Mistake
	var truePositive, predicted, support [10]int
	for i, label := range labels {
		scores := scored(i, labels)
		best, sum := 0, 0.0
		for c, s := range scores {
			sum += math.Exp(float64(s))
			if s > scores[best] {
				best = c
			}
		}
		loss -= math.Log(math.Exp(float64(scores[label])) / sum)
		predicted[best]++
		support[label]++
		if best == int(label) {
			right++
			truePositive[best]++
		} else {
			mistakes = append(mistakes, Mistake{i, int(label), best, math.Exp(float64(scores[best])) / sum})
		}
	}
	n := float64(len(labels))
	if r.Images != len(labels) || r.Accuracy != float64(right)/n || math.Abs(r.Loss-loss/n) > 1e-12 {
		t.Errorf("%d images, accuracy %g, loss %g; want %d, %g, %g", r.Images, r.Accuracy, r.Loss, len(labels),
			float64(right)/n, loss/n)
	}
	slices.SortStableFunc(mistakes, func(a, b Mistake) int { // the worst first, to what rounding leaves
		return cmp.Compare(math.Round(b.Probability*1e9), math.Round(a.Probability*1e9))
	})
	if len(r.Mistakes) != min(len(mistakes), MaxMistakes) {
		t.Errorf("%d mistakes of %d, want at most %d", len(r.Mistakes), len(mistakes), MaxMistakes)
	}
	for i, m := range r.Mistakes {
		if want := mistakes[i]; math.Abs(m.Probability-want.Probability) > 1e-9 ||
			slices.IndexFunc(mistakes, func(o Mistake) bool {
				return o.Image == m.Image && o.Label == m.Label && o.Predicted == m.Predicted
			}) < 0 {
			t.Errorf("mistake %d is %+v, want %+v", i, m, want)
		}
	}
	for c, got := range r.Classes {
		want := Class{clothes[c], 0, 0, support[c]}
		if predicted[c] > 0 {
			want.Precision = float64(truePositive[c]) / float64(predicted[c])
		}
		if support[c] > 0 {
			want.Recall = float64(truePositive[c]) / float64(support[c])
		}
		if got != want {
			t.Errorf("class %d: got %+v, want %+v", c, got, want)
		}
	}
}

// same gives every image the same scores.
func same(scores ...float32) func([]byte, int, []float32) error {
	return func(_ []byte, n int, dst []float32) error {
		for i := range n {
			copy(dst[i*len(scores):], scores)
		}
		return nil
	}
}

func TestLossIsStable(t *testing.T) {
	for _, test := range []struct {
		scores []float32
		label  uint8
		want   float64
	}{
		{[]float32{0, 0}, 1, math.Ln2},
		{[]float32{math.MaxFloat32, math.MaxFloat32}, 0, math.Ln2},
		{[]float32{1e30, -1e30}, 0, 0},
		{[]float32{-5000, -5003}, 1, 3 + math.Log1p(math.Exp(-3))},
		{[]float32{100, 0}, 1, 100},
	} {
		r, err := Evaluate(t.Context(), same(test.scores...), []byte{0}, 1, []uint8{test.label}, clothes[:2])
		if err != nil || math.Abs(r.Loss-test.want) > 1e-12*(1+test.want) {
			t.Errorf("scores %v: loss %g, %v; want %g", test.scores, r.Loss, err, test.want)
		}
	}
}

func TestEvaluateRefuses(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	broken := errors.New("broken")
	cancel(broken)
	if _, err := Evaluate(ctx, same(0, 0), []byte{0}, 1, []uint8{0}, clothes[:2]); err == nil {
		t.Error("went on after the context was done")
	}
	for name, call := range map[string]func() (Result, error){
		"no labels": func() (Result, error) { return Evaluate(t.Context(), same(0, 0), nil, 1, nil, clothes[:2]) },
		"no size": func() (Result, error) {
			return Evaluate(t.Context(), same(0, 0), nil, 0, []uint8{0},
				clothes[:2])
		},
		"few images": func() (Result, error) {
			return Evaluate(t.Context(), same(0, 0), []byte{0}, 1, []uint8{0, 0}, clothes[:2])
		},
		"label over 1": func() (Result, error) {
			return Evaluate(t.Context(), same(0, 0), []byte{0}, 1, []uint8{2}, clothes[:2])
		},
		"NaN": func() (Result, error) {
			return Evaluate(t.Context(), same(0, float32(math.NaN())), []byte{0}, 1, []uint8{0}, clothes[:2])
		},
		"infinite": func() (Result, error) {
			return Evaluate(t.Context(), same(float32(math.Inf(-1)), 0), []byte{0}, 1, []uint8{0}, clothes[:2])
		},
		"failing": func() (Result, error) {
			return Evaluate(t.Context(), func([]byte, int, []float32) error { return broken }, []byte{0}, 1,
				[]uint8{0}, clothes[:2])
		},
	} {
		if r, err := call(); err == nil || !reflect.DeepEqual(r, Result{}) {
			t.Errorf("%s: %+v, %v", name, r, err)
		} else if name == "failing" && !errors.Is(err, broken) {
			t.Error("the cause is lost:", err)
		}
	}
}

func TestTable(t *testing.T) {
	images, labels := numbered(10000)
	r, err := Evaluate(t.Context(), func(batch []byte, n int, dst []float32) error {
		for i := range n {
			copy(dst[i*len(clothes):], scored(int(binary.LittleEndian.Uint32(batch[4*i:])), labels))
		}
		return nil
	}, images, 4, labels, clothes)
	if err != nil {
		t.Fatal(err)
	}
	var got bytes.Buffer
	if err := r.WriteTable(&got); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(path, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got.Bytes(), want) {
		t.Errorf("%v; the table is\n%s", err, got.Bytes())
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Result
	if err := json.Unmarshal(line, &back); err != nil || !reflect.DeepEqual(back, r) {
		t.Errorf("%s came back as %+v, %v", line, back, err)
	}
}

func TestTop(t *testing.T) {
	got, err := Top([]float32{1, 3, 3, float32(math.Log(2))}, clothes[:4], 3)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 3 || got[0].Class != 1 || got[1].Class != 2 || got[2].Class != 0 ||
		got[0].Probability != got[1].Probability {
		t.Errorf("got %+v", got)
	}
	all, _ := Top([]float32{1, 3, 3, -2}, clothes[:4], 99)
	sum := 0.0
	for _, g := range all {
		sum += g.Probability
	}
	if len(all) != 4 || math.Abs(sum-1) > 1e-12 {
		t.Errorf("probabilities of %+v sum to %g", all, sum)
	}
	bars := FormatGuesses([]Guess{{7, "Sneaker", 0.5}, {9, "Ankle boot", 0.004}})
	if bars != "  Sneaker     50.0% "+strings.Repeat("█", barWidth/2)+"\n  Ankle boot   0.4%\n" {
		t.Errorf("%q", bars)
	}
	for _, scores := range [][]float32{nil, {1}, {1, 2, 3, float32(math.NaN())}} {
		if g, err := Top(scores, clothes[:4], 1); err == nil {
			t.Errorf("%v gave %v", scores, g)
		}
	}
}
