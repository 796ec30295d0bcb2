package evaluate

import (
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

	"evenweave/evaluation"
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
func compare(t *testing.T, r evaluation.Result, labels []uint8) {
	t.Helper()
	right, loss := 0, 0.0
	var mistakes []evaluation.Mistake
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
			mistakes = append(mistakes, evaluation.Mistake{Sample: i, Label: int(label), Predicted: best,
				Probability: math.Exp(float64(scores[best])) / sum})
		}
	}
	n := float64(len(labels))
	if r.Samples != len(labels) || r.Accuracy != float64(right)/n || math.Abs(r.Loss-loss/n) > 1e-12 {
		t.Errorf("%d images, accuracy %g, loss %g; want %d, %g, %g", r.Samples, r.Accuracy, r.Loss, len(labels),
			float64(right)/n, loss/n)
	}
	slices.SortStableFunc(mistakes, func(a, b evaluation.Mistake) int { // the worst first, to what rounding leaves
		return cmp.Compare(math.Round(b.Probability*1e9), math.Round(a.Probability*1e9))
	})
	if len(r.Mistakes) != min(len(mistakes), evaluation.MaxMistakes) {
		t.Errorf("%d mistakes of %d, want at most %d", len(r.Mistakes), len(mistakes), evaluation.MaxMistakes)
	}
	for i, m := range r.Mistakes {
		if want := mistakes[i]; math.Abs(m.Probability-want.Probability) > 1e-9 ||
			slices.IndexFunc(mistakes, func(o evaluation.Mistake) bool {
				return o.Sample == m.Sample && o.Label == m.Label && o.Predicted == m.Predicted
			}) < 0 {
			t.Errorf("mistake %d is %+v, want %+v", i, m, want)
		}
	}
	for c, got := range r.Classes {
		want := evaluation.Class{Name: clothes[c], Support: support[c]}
		if predicted[c] > 0 {
			want.Precision = float64(truePositive[c]) / float64(predicted[c])
		}
		if support[c] > 0 {
			want.Recall = float64(truePositive[c]) / float64(support[c])
		}
		if want.Precision+want.Recall > 0 {
			want.F1 = 2 * want.Precision * want.Recall / (want.Precision + want.Recall)
		}
		if math.Abs(got.F1-want.F1) > 1e-12 {
			t.Errorf("class %d: F1 %g, want %g", c, got.F1, want.F1)
		}
		got.F1 = want.F1
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
	for name, call := range map[string]func() (evaluation.Result, error){
		"no labels": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(0, 0), nil, 1, nil,
				clothes[:2])
		},
		"no size": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(0, 0), nil, 0, []uint8{0},
				clothes[:2])
		},
		"few images": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(0, 0), []byte{0}, 1, []uint8{0, 0}, clothes[:2])
		},
		"label over 1": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(0, 0), []byte{0}, 1, []uint8{2}, clothes[:2])
		},
		"NaN": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(0, float32(math.NaN())), []byte{0}, 1, []uint8{0}, clothes[:2])
		},
		"infinite": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), same(float32(math.Inf(-1)), 0), []byte{0}, 1, []uint8{0}, clothes[:2])
		},
		"failing": func() (evaluation.Result, error) {
			return Evaluate(t.Context(), func([]byte, int, []float32) error { return broken }, []byte{0}, 1,
				[]uint8{0}, clothes[:2])
		},
	} {
		if r, err := call(); err == nil || !reflect.DeepEqual(r, evaluation.Result{}) {
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
	got := Table(r)
	path := filepath.Join("testdata", "table.txt")
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || got != string(want) {
		t.Errorf("%v; the table is\n%s", err, got)
	}
	line, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back evaluation.Result
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

// TestFiguresAgainstScikitLearn: 200 images of 4 classes, whose scores are a formula. The figures were computed by
// NumPy and scikit-learn 1.9 from the same formula: precision_recall_fscore_support, confusion_matrix, log_loss, and
// the calibration error over 15 bins of equal width by its definition.
func TestFiguresAgainstScikitLearn(t *testing.T) {
	const n, k = 200, 4
	scores, labels := make([]float32, n*k), make([]uint8, n)
	for i := range n {
		for c := range k {
			scores[i*k+c] = float32(float64((i*7919+c*104729+i*c*31)%1000) / 100)
		}
		labels[i] = uint8((i*13 + 5) / 7 % k)
		scores[i*k+int(labels[i])] += 3
	}
	at := 0
	r, err := Evaluate(t.Context(), func(_ []byte, n int, dst []float32) error {
		at += copy(dst, scores[at:at+n*k])
		return nil
	}, make([]byte, n), 1, labels, clothes[:k])
	if err != nil {
		t.Fatal(err)
	}
	near := func(what string, got, want float64) {
		if math.Abs(got-want) > 1e-12 {
			t.Errorf("%s is %.16g, want %.16g", what, got, want)
		}
	}
	near("accuracy", r.Accuracy, 0.595)
	near("loss", r.Loss, 1.3912465760409694)
	near("macro F1", r.MacroF1, 0.595358517184582)
	near("ECE", r.ECE, 0.2275731825316207)
	if want := [][]int{{28, 10, 7, 6}, {1, 30, 9, 9}, {7, 9, 32, 3}, {6, 5, 9, 29}}; !reflect.DeepEqual(r.Confusion,
		want) {
		t.Errorf("confusion %v, want %v", r.Confusion, want)
	}
	for c, want := range []evaluation.Class{
		{Name: clothes[0], Precision: 0.6666666666666666, Recall: 0.5490196078431373, F1: 0.6021505376344086,
			Support: 51},
		{Name: clothes[1], Precision: 0.5555555555555556, Recall: 0.6122448979591837, F1: 0.5825242718446602,
			Support: 49},
		{Name: clothes[2], Precision: 0.5614035087719298, Recall: 0.6274509803921569, F1: 0.5925925925925926,
			Support: 51},
		{Name: clothes[3], Precision: 0.6170212765957447, Recall: 0.5918367346938775, F1: 0.6041666666666666,
			Support: 49},
	} {
		near("precision", r.Classes[c].Precision, want.Precision)
		near("recall", r.Classes[c].Recall, want.Recall)
		near("F1", r.Classes[c].F1, want.F1)
		if r.Classes[c].Support != want.Support {
			t.Errorf("class %d: %d images, want %d", c, r.Classes[c].Support, want.Support)
		}
	}
	if last := r.Bins[len(r.Bins)-1]; len(r.Bins) != 9 || last.Samples != 62 {
		t.Errorf("%+v: want 9 bins with images, 62 in the last", r.Bins)
	} else {
		near("confidence", last.Confidence, 0.978699817685911)
		near("accuracy of the surest", last.Accuracy, 0.8225806451612904)
	}
}
