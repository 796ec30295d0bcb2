package dataset

import (
	"fmt"
	"image/color"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

// shows is what people see of data: the number of samples of each class, files, and the first pixel of each picture.
func shows(t *testing.T, d evenweave.Data) (classes, files, pixels string) {
	t.Helper()
	classed, counts := d.(evenweave.Classed), map[int]int{}
	for i := range d.Len() {
		counts[classed.Class(i)]++
		m, err := d.(evenweave.Pictured).Picture(i)
		if err != nil {
			t.Fatal(err)
		}
		if m != nil {
			r, g, b, _ := m.At(m.Bounds().Min.X, m.Bounds().Min.Y).RGBA()
			pixels += fmt.Sprintf(" %02x%02x%02x", r>>8, g>>8, b>>8)
		}
	}
	for i, name := range classed.Classes() {
		classes += fmt.Sprintf(" %s:%d", name, counts[i])
	}
	for _, f := range d.(evenweave.Located).Files() {
		files += " " + filepath.Base(f)
	}
	return strings.TrimSpace(classes), strings.TrimSpace(files), strings.TrimSpace(pixels)
}

// Each set shows its classes, files and pictures, under the indices that a part of it has, and where it is augmented or
// loaded ahead.
func TestSetsShowThemselves(t *testing.T) {
	idx, _, err := IDX(put(t, small()))
	if err != nil {
		t.Fatal(err)
	}
	album, _, err := Images(put(t, album()), Pictures{Height: 8, Width: 8, Color: true, Test: 0.3})
	if err != nil {
		t.Fatal(err)
	}
	rows := put(t, map[string][]byte{"t.csv": []byte("x,y\n1,no\n2,yes\n3,no\n")})
	table, _, err := CSV(filepath.Join(rows, "t.csv"), Table{Numbers: []string{"x"}, Label: "y", Classes: true})
	if err != nil {
		t.Fatal(err)
	}
	numbers, _, err := CSV(filepath.Join(put(t, map[string][]byte{"t.csv": []byte("x,y\n1,2\n")}), "t.csv"),
		Table{Numbers: []string{"x"}, Label: "y"})
	if err != nil {
		t.Fatal(err)
	}
	text, err := Text(put(t, map[string][]byte{"a": []byte("some text"), "b": []byte("more text")}), Windows{Length: 4})
	if err != nil {
		t.Fatal(err)
	}
	part, err := Range(idx.Train, 1, 4)
	if err != nil {
		t.Fatal(err)
	}
	const trainFiles = "train-images-idx3-ubyte train-labels-idx1-ubyte"
	for _, want := range []struct {
		name                   string
		data                   evenweave.Data
		classes, files, pixels string
	}{
		{"IDX", idx.Train, "0:1 1:1 2:1 3:2", trainFiles, "000000 2a2a2a 545454 7e7e7e a8a8a8"},
		{"its test part", idx.Test, "0:1 1:1 2:0 3:1", strings.ReplaceAll(trainFiles, "train", "t10k"),
			"000000 2a2a2a 545454"},
		{"a part", part, "0:0 1:1 2:0 3:2", trainFiles, "2a2a2a 545454 7e7e7e"},
		{"made larger and loaded ahead", Prefetched(Augmented(part, Augmentation{Mirror: true}), 2), "0:0 1:1 2:0 3:2",
			trainFiles, "2a2a2a 545454 7e7e7e"},
		{"a table", table.Train, "no:2 yes:1", "t.csv", ""},
		{"numbers", numbers.Train, "", "t.csv", ""},
		{"text", text.Train, "", "a b", ""},
	} {
		classes, files, pixels := shows(t, want.data)
		if classes != want.classes || files != want.files || pixels != want.pixels {
			t.Errorf("%s shows %q, %q, %q", want.name, classes, files, pixels)
		}
	}
	shuffled := Shuffle(idx.Train, 3)
	_, _, whole := shows(t, idx.Train)
	_, _, pixels := shows(t, shuffled)
	for i, sample := range samplesOf(t, shuffled) {
		if first := strings.Fields(pixels)[i][:2]; !strings.Contains(sample, "uint8[2 3] "+first) {
			t.Errorf("shuffled sample %d is shown as %s: %s", i, first, sample)
		}
	}
	if slices.Equal(strings.Fields(pixels), strings.Fields(whole)) {
		t.Error("shuffling changes nothing that is shown")
	}
	checkAlbum(t, album.Train)
}

// checkAlbum: a cat's first pixel is red, a dog's blue.
func checkAlbum(t *testing.T, d evenweave.Data) {
	t.Helper()
	classes, _, _ := shows(t, d)
	if !strings.HasPrefix(classes, "cat:") || !strings.Contains(classes, " dog:") {
		t.Errorf("the album has the classes %s", classes)
	}
	for i := range d.Len() {
		m, err := d.(evenweave.Pictured).Picture(i)
		if err != nil {
			t.Fatal(err)
		}
		if c := m.At(0, 0).(color.RGBA); c.R > c.B != (d.(evenweave.Classed).Class(i) == 0) {
			t.Errorf("picture %d of class %d is %v", i, d.(evenweave.Classed).Class(i), c)
		}
	}
}

// A picture that cannot be read is named as where it is loaded.
func TestAPictureThatCannotBeShown(t *testing.T) {
	sets, _, err := Images(put(t, map[string][]byte{"a/bad.png": []byte("no picture")}), Pictures{Height: 2, Width: 2})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := sets.Train.(evenweave.Pictured).Picture(0); err == nil || !strings.Contains(err.Error(), "bad.png") {
		t.Error(err)
	}
	for _, bytes := range [][]int{{2}, {2, 2, 2}, {2, 2, 2, 2}} {
		d, err := InMemory([]Flat{Of(make([]byte, 16), bytes...)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := d.(evenweave.Pictured).Picture(0); m != nil || err != nil {
			t.Errorf("bytes of %v are shown as a picture: %v", bytes, err)
		}
	}
}
