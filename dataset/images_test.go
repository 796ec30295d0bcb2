package dataset

import (
	"bytes"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

// painted is a picture with a left half of one color and a right half of another.
func painted(w, h int, left, right color.Color, form string) []byte {
	m := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, map[bool]color.Color{true: left, false: right}[x < w/2])
		}
	}
	var b bytes.Buffer
	if form == "png" {
		png.Encode(&b, m)
	} else {
		jpeg.Encode(&b, m, nil)
	}
	return b.Bytes()
}

func album() map[string][]byte {
	red, blue := color.NRGBA{R: 255, A: 255}, color.NRGBA{B: 255, A: 255}
	files := map[string][]byte{"README": nil, "cat/note.txt": nil, ".thumbs/x.png": nil}
	for i := range 10 {
		files[fmt.Sprintf("cat/%d.png", i)] = painted(8+i, 8, red, blue, "png")
		files[fmt.Sprintf("dog/deep/%d.JPG", i)] = painted(8, 8+i, blue, red, "jpg")
	}
	return files
}

func TestImagesByClass(t *testing.T) {
	root := put(t, album())
	for _, p := range []Pictures{{Height: 8, Width: 8, Test: 0.3}, {Height: 5, Width: 7, Color: true, Test: 0.3}} {
		sets, classes, err := Images(root, p)
		if err != nil || strings.Join(classes, " ") != "cat dog" || sets.Train.Len() != 14 || sets.Test.Len() != 6 {
			t.Fatalf("%v, %v", classes, err)
		}
		checkSamples(t, sets.Train)
		checkSamples(t, sets.Test)
		var of [2]int
		for _, sample := range append(samplesOf(t, sets.Train), samplesOf(t, sets.Test)...) {
			class := sample[strings.LastIndex(sample, " ")+2:][:1]
			of[class[0]-'0']++
			if channels := fmt.Sprintf("[%d %d %d]", p.Height, p.Width,
				map[bool]int{false: 1, true: 3}[p.Color]); !strings.Contains(sample, channels) {
				t.Errorf("%s: want shape %s", sample, channels)
			}
			// A cat's first pixel is red, a dog's blue.
			first := strings.Fields(sample[strings.Index(sample, "]")+1:])[0]
			if p.Color && (first[:2] > "e0") != (class == "0") {
				t.Errorf("class %s begins with %s", class, first[:6])
			}
		}
		if of != [2]int{10, 10} {
			t.Errorf("samples of the classes: %v", of)
		}
		if again, _, err := Images(root, p); err != nil || again.Train.Digest() != sets.Train.Digest() ||
			again.Test.Digest() == sets.Train.Digest() {
			t.Errorf("digests %q, %q: %v", again.Train.Digest(), again.Test.Digest(), err)
		}
	}
}

// A picture of the right size is not changed; another keeps the middle, and transparent parts become white.
func TestPicturesAreScaledAndCut(t *testing.T) {
	gray, clear := color.NRGBA{100, 100, 100, 255}, color.NRGBA{}
	root := put(t, map[string][]byte{"a/same.png": painted(4, 2, gray, clear, "png")})
	sets, _, err := Images(root, Pictures{Height: 2, Width: 4})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := samplesOf(t, sets.Train)[0], "1 uint8[2 4 1] 6464ffff6464ffff int32[1] 00000000"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if sets, _, err = Images(root, Pictures{Height: 20, Width: 20}); err != nil { // the 2 x 2 in the middle
		t.Fatal(err)
	}
	if got := samplesOf(t, sets.Train)[0]; strings.Count(got, "ffffffffff70") != 19 ||
		!strings.Contains(got, " 70") {
		t.Errorf("got %s", got)
	}
}

func TestFoldersDividedIntoParts(t *testing.T) {
	files := map[string][]byte{}
	for name, b := range album() {
		files["train/"+name] = b
	}
	files["test/dog/1.png"] = files["train/cat/1.png"]
	sets, classes, err := Images(put(t, files), Pictures{Height: 4, Width: 4})
	if err != nil || len(classes) != 2 || sets.Train.Len() != 20 || sets.Test.Len() != 1 || sets.HeldOut != nil {
		t.Fatal(classes, err)
	}
	if got := samplesOf(t, sets.Test)[0]; !strings.HasSuffix(got, " 01000000") {
		t.Errorf("a dog's label: %s", got)
	}
	files["test/fox/1.png"] = nil
	if _, _, err := Images(put(t, files), Pictures{Height: 4, Width: 4}); err == nil ||
		!strings.Contains(err.Error(), `no class "fox"`) {
		t.Error(err)
	}
}

// Each picture is in one part, whether the parts are shares, or the test part has a folder of its own.
func TestPartsOfAFolder(t *testing.T) {
	p := Pictures{Height: 4, Width: 4, Test: 0.2, HeldOut: 0.1}
	root := put(t, album())
	whole, _, err := Images(root, Pictures{Height: 4, Width: 4})
	if err != nil {
		t.Fatal(err)
	}
	sets, _, err := Images(root, p)
	if err != nil {
		t.Fatal(err)
	}
	parts := []evenweave.Data{sets.Train, sets.HeldOut, sets.Test}
	var got []string
	for i, n := range []int{14, 2, 4} {
		if parts[i].Len() != n {
			t.Errorf("part %d has %d pictures, expected %d", i, parts[i].Len(), n)
		}
		checkSamples(t, parts[i])
		got = append(got, samplesOf(t, parts[i])...)
	}
	if !slices.Equal(got, samplesOf(t, whole.Train)) {
		t.Error("the parts are not the whole")
	}
	files := map[string][]byte{}
	for name, b := range album() {
		files["train/"+name] = b
	}
	if sets, _, err = Images(put(t, files), p); err != nil || sets.Train.Len() != 14 || sets.Test.Len() != 4 {
		t.Errorf("a folder \"train\" alone: %v", err)
	}
	files["test/dog/1.png"] = files["train/cat/1.png"]
	if sets, _, err = Images(put(t, files), p); err != nil || sets.Train.Len() != 18 || sets.HeldOut.Len() != 2 ||
		sets.Test.Len() != 1 {
		t.Errorf("folders \"train\" and \"test\": %v", err)
	}
}

func TestBadPicturesAreNamed(t *testing.T) {
	good := Pictures{Height: 4, Width: 4}
	for want, c := range map[string]struct {
		files map[string][]byte
		Pictures
	}{
		"no pictures":              {map[string][]byte{"a/b.txt": nil}, good},
		"x.png: expected pictures": {map[string][]byte{"x.png": nil}, good},
		"pictures of 0 x 4":        {album(), Pictures{Width: 4}},
		"pictures of 8193 x 4":     {album(), Pictures{Height: 8193, Width: 4}},
		"a test part of 1 and 0":   {album(), Pictures{4, 4, false, 1, 0}},
		"0.5 and 0.5 held out":     {album(), Pictures{4, 4, false, 0.5, 0.5}},
		"0 and NaN held out":       {album(), Pictures{4, 4, false, 0, math.NaN()}},
		"expected at least one in": {album(), Pictures{4, 4, false, 0.1, 0.04}},
	} {
		if _, _, err := Images(put(t, c.files), c.Pictures); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	for want, b := range map[string][]byte{
		"not a PNG, JPEG, GIF or WebP": []byte("hello"), "a TIFF image is not read": []byte("II*\x00"),
		"damaged PNG": painted(9, 9, color.White, color.Black, "png")[:60],
	} {
		sets, _, err := Images(put(t, map[string][]byte{"a/bad.png": b}), good)
		if err != nil {
			t.Fatal(err)
		}
		err = sets.Train.Load(batch(0, 0))
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "a/bad.png") {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
}

func augmentable(t *testing.T) evenweave.Data {
	t.Helper()
	values := make([]byte, 20*6*5*3)
	for i := range values {
		values[i] = byte(1 + i%251)
	}
	d, err := InMemory([]Flat{Of(values, 6, 5, 3)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// What happens to a sample depends on seed, epoch and sample alone, and differs with each.
func TestAugmentationIsAFunctionOfSeedEpochAndSample(t *testing.T) {
	whole := augmentable(t)
	d := Augmented(whole, Augmentation{Mirror: true, Shift: 2, Erase: 3})
	checkSamples(t, d)
	load := func(seed uint64, epoch int64) string {
		b := batch(3, 0, 1, 2, 3, 4, 5, 6, 7)
		b.Seed, b.Epoch = seed, epoch
		return strings.Join(contentOf(t, d, b), "\n")
	}
	first := load(1, 1)
	if again := load(1, 1); again != first || first == load(1, 2) || first == load(2, 1) {
		t.Error("seed and epoch do not decide")
	}
	if d.Digest() == whole.Digest() || d.Digest() == Augmented(whole, Augmentation{Mirror: true}).Digest() {
		t.Error("digests do not say what was augmented")
	}
	if same := Augmented(whole, Augmentation{}); strings.Join(samplesOf(t, same),
		"") != strings.Join(samplesOf(t, whole), "") {
		t.Error("nothing to do changes images")
	}
}

func TestAugmentationMovesPixels(t *testing.T) {
	for seed := range uint64(200) {
		original := pixels{[]byte{1, 2, 3, 4, 5, 6}, 2, 3, 1}
		got := pixels{bytes.Clone(original.bytes), 2, 3, 1}
		Augmentation{Mirror: true}.change(got, original.bytes, evenweave.NewGenerator(seed))
		if s := fmt.Sprint(got.bytes); s != "[1 2 3 4 5 6]" && s != "[3 2 1 6 5 4]" {
			t.Fatalf("mirrored: %s", s)
		}
		got.bytes = bytes.Clone(original.bytes)
		Augmentation{Shift: 9, Erase: 99}.change(got, original.bytes, evenweave.NewGenerator(seed))
		for _, v := range got.bytes {
			if v > 6 || v != 0 && bytes.Count(got.bytes, []byte{v}) != 1 {
				t.Fatalf("shifted: %v", got.bytes)
			}
		}
	}
	d, _ := InMemory([]Flat{Of([]float32{1}, 1, 1)}, nil)
	if err := Augmented(d, Augmentation{Mirror: true}).Load(batch(0, 0)); err == nil ||
		!strings.Contains(err.Error(), "expected uint8 images") {
		t.Error(err)
	}
}

func FuzzImages(f *testing.F) {
	f.Add(painted(3, 2, color.White, color.Black, "png"), 2, 3)
	f.Add(painted(3, 2, color.White, color.Black, "jpg"), 1, 1)
	f.Fuzz(func(t *testing.T, b []byte, height, width int) {
		if height > 64 || width > 64 || len(b) > 4096 {
			t.Skip("takes seconds")
		}
		sets, _, err := Images(put(t, map[string][]byte{"a/b.png": b}), Pictures{Height: height, Width: width})
		if err == nil {
			_ = sets.Train.Load(batch(0, 0))
		}
	})
}
