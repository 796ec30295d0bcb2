package fashion

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenweave"
	"evenweave/dataset"
)

// letters writes a set of 40 and 20 images with labels 0 to 25, as EMNIST names its files.
func letters(t *testing.T, side uint32) string {
	t.Helper()
	return images(t, side, 26, 40)
}

// images writes a set of n images to train on, and half as many to test on, of so many classes.
func images(t *testing.T, side uint32, classes, n uint32) string {
	t.Helper()
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	for part, n := range map[string]uint32{"train": n, "test": n / 2} {
		images, labels := []byte{0, 0, 8, 3}, []byte{0, 0, 8, 1}
		for _, axis := range []uint32{n, side, side} {
			images = binary.BigEndian.AppendUint32(images, axis)
		}
		labels = binary.BigEndian.AppendUint32(labels, n)
		for i := range n {
			labels = append(labels, byte(i%classes))
			for at := range side * side {
				images = append(images, byte(at*(i+3)))
			}
		}
		for name, content := range map[string][]byte{"-images-idx3-ubyte": images, "-labels-idx1-ubyte": labels} {
			if err := os.WriteFile(filepath.Join(dir, "emnist-letters-"+part+name), content, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// Any IDX set of 28 x 28 images is trained on, with as many outputs as it has classes; its digest is pinned.
func TestAnotherSetOfImages(t *testing.T) {
	dir := letters(t, 28)
	task := Task()
	o := task.Options.(*options)
	o.Classes, o.Holdout = "0-12,20-25", 3
	sets, err := task.Data(dir)
	if err != nil {
		t.Fatal(err)
	}
	whole, _, err := dataset.IDX(dir)
	if err != nil {
		t.Fatal(err)
	}
	b := &evenweave.Batch{Samples: []int32{0}}
	if err := whole.Train.Load(b); err != nil {
		t.Fatal(err)
	}
	want := b.Content.(*dataset.Content).Inputs[0].Bytes
	b.Content = nil
	if err := sets.Train.Load(b); err != nil {
		t.Fatal(err)
	}
	if got := b.Content.(interface{ Image(int) []byte }).Image(0); !slices.Equal(got, want) {
		t.Error("the first image is another one")
	}
	if o.Outputs != 26 || o.Samples != 29 || sets.Train.Len() != 29 || sets.HeldOut.Len() != 3 ||
		sets.Test.Len() != 13 {
		t.Errorf("%d outputs, %d of %d samples, %d held out, %d to test", o.Outputs, o.Samples, sets.Train.Len(),
			sets.HeldOut.Len(), sets.Test.Len())
	}
	model, err := task.Model(evenweave.Setup{Backend: "go", MicroBatch: 2, TotalSteps: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	if err := model.Init(1); err != nil {
		t.Fatal(err)
	}
	b = &evenweave.Batch{Samples: []int32{22, evenweave.Padding}}
	if err := sets.Train.Load(b); err != nil {
		t.Fatal(err)
	}
	var grads [][]float32
	for _, tensor := range model.Tensors() {
		if tensor.Summed() {
			grads = append(grads, make([]float32, tensor.Elements()))
		}
	}
	if sums, err := model.Gradients(b, grads); err != nil || sums.Weight != 1 || len(grads[len(grads)-1]) != 26 {
		t.Errorf("%+v, %d biases, %v", sums, len(grads[len(grads)-1]), err)
	}
	figures, err := model.(evenweave.Evaluator).Evaluate(t.Context(), sets.Test)
	if err != nil || len(figures) != 2 {
		t.Errorf("%v, %v", figures, err)
	}
	if path := saved(t, model.Tensors()); path != "" {
		other := Task()
		from := other.Options.(*options)
		from.InitFrom = path
		if _, err := from.Prepare(t.Context()); err != nil || from.fits() == nil {
			t.Errorf("weights for 26 classes fit 10: %v", err)
		}
		if _, err := other.Data(dir); err != nil {
			t.Errorf("weights for 26 classes: %v", err)
		}
	}
}

// From 2 to 256 classes the network has as many outputs, and learns from a sample of the last class.
func TestAnyNumberOfClasses(t *testing.T) {
	for _, classes := range []uint32{2, 256} {
		task := Task()
		sets, err := task.Data(images(t, 28, classes, 256))
		if err != nil {
			t.Fatal(err)
		}
		model, err := task.Model(evenweave.Setup{Backend: "go", MicroBatch: 2, TotalSteps: 1})
		if err != nil {
			t.Fatal(err)
		}
		defer model.Close()
		if err := model.Init(1); err != nil {
			t.Fatal(err)
		}
		b := &evenweave.Batch{Samples: []int32{int32(classes - 1), evenweave.Padding}}
		if err := sets.Train.Load(b); err != nil {
			t.Fatal(err)
		}
		var grads [][]float32
		for _, tensor := range model.Tensors() {
			if tensor.Summed() {
				grads = append(grads, make([]float32, tensor.Elements()))
			}
		}
		sums, err := model.Gradients(b, grads)
		biases := grads[len(grads)-1]
		if err != nil || sums.Weight != 1 || len(biases) != int(classes) || biases[classes-1] >= 0 || biases[0] <= 0 {
			t.Errorf("%d classes: %+v, %d biases, %v", classes, sums, len(biases), err)
		}
		figures, err := model.(evenweave.Evaluator).Evaluate(t.Context(), sets.Test)
		if err != nil || len(figures) != 2 {
			t.Errorf("%d classes: %v, %v", classes, figures, err)
		}
	}
}

// What the data do not have is refused by the flag's name.
func TestDataThatDoNotFit(t *testing.T) {
	dir := letters(t, 28)
	for says, o := range map[string]options{
		"--holdout 40 leaves no sample": {Holdout: 40},
		"choose at most 30":             {Holdout: 10, Samples: 31},
		`--classes "3-26"`:              {Classes: "3-26"},
	} {
		o.Recipe = "fast"
		if _, err := o.data(dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
	for says, dir := range map[string]string{"images of [14 14] pixels": letters(t, 14),
		"no file of train images": t.TempDir()} {
		if _, err := (&options{Recipe: "fast"}).data(dir); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want %q", err, says)
		}
	}
}
