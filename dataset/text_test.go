package dataset

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave"
)

// tokens loads one sample of windows.
func tokens(t *testing.T, d evenweave.Data, sample int) (inputs, labels []int32) {
	t.Helper()
	b := evenweave.Batch{Samples: []int32{int32(sample)}}
	if err := d.Load(&b); err != nil {
		t.Fatal(err)
	}
	c := b.Content.(*Content)
	read := func(f Flat) []int32 {
		all := make([]int32, len(f.Bytes)/4)
		if _, err := binary.Decode(f.Bytes, binary.LittleEndian, all); err != nil {
			t.Fatal(err)
		}
		return all
	}
	return read(c.Inputs[0]), read(c.Labels[0])
}

// Windows are cut from all files as from one text, across their borders, and no token is in both parts.
func TestWindowsAreThoseOfTheWholeText(t *testing.T) {
	var text []byte
	files := map[string][]byte{".hidden": []byte("no"), "z.bin": []byte("no"), "d/empty.txt": nil}
	for i, name := range []string{"a.txt", "b/c.txt", "d.txt", "d/e.txt"} {
		part := make([]byte, 7*i+3)
		for k := range part {
			part[k] = byte(len(text) + k)
		}
		files[name] = part
		text = append(text, part...)
	}
	root := put(t, files)
	for _, w := range []Windows{{Length: 5, Test: 0.3}, {Length: 1, Stride: 1, Test: 0.5},
		{Length: 7, Stride: 2, Test: 0.25, HeldOut: 0.25}, {Length: 5, HeldOut: 0.25}} {
		w.Match = "*.txt"
		sets, err := Text(root, w)
		if err != nil {
			t.Fatal(err)
		}
		test := len(text) - int(float64(len(text))*w.Test)
		held := test - int(float64(len(text))*w.HeldOut)
		if (sets.Test == nil) != (w.Test == 0) || (sets.HeldOut == nil) != (w.HeldOut == 0) {
			t.Fatalf("%+v: %+v", w, sets)
		}
		for d, part := range map[evenweave.Data][2]int{sets.Train: {0, held}, sets.HeldOut: {held, test},
			sets.Test: {test, len(text)}} {
			if d == nil {
				continue
			}
			from, end := part[0], part[1]
			stride := max(w.Stride, 1)
			if w.Stride == 0 {
				stride = w.Length
			}
			if next := from + d.Len()*stride; next+w.Length < end || next-stride+w.Length >= end {
				t.Errorf("%+v: %d windows from %d to %d", w, d.Len(), from, end)
			}
			for i := range d.Len() {
				in, out := tokens(t, d, i)
				for k := range w.Length {
					if at := from + i*stride + k; in[k] != int32(text[at]) || out[k] != int32(text[at+1]) {
						t.Fatalf("%+v: window %d holds %v and %v", w, i, in, out)
					}
				}
			}
			checkSamples(t, d)
		}
	}
}

func TestTokensOfSeveralBytes(t *testing.T) {
	want := []int32{0, 1, 49_999, 258, 3, 5}
	for width, encode := range map[int]func([]byte, int32) []byte{
		2: func(b []byte, v int32) []byte { return binary.LittleEndian.AppendUint16(b, uint16(v)) },
		4: func(b []byte, v int32) []byte { return binary.LittleEndian.AppendUint32(b, uint32(v)) },
	} {
		var b []byte
		for _, v := range want {
			b = encode(b, v)
		}
		file := filepath.Join(put(t, map[string][]byte{"tokens": b}), "tokens")
		sets, err := Text(file, Windows{Length: 5, Width: width, Vocabulary: 50_000})
		if err != nil {
			t.Fatal(err)
		}
		if in, out := tokens(t, sets.Train, 0); !slices.Equal(in, want[:5]) || !slices.Equal(out, want[1:]) ||
			sets.Test != nil {
			t.Errorf("%d bytes: %v, %v", width, in, out)
		}
		sets, err = Text(file, Windows{Length: 5, Width: width, Vocabulary: 49_999})
		if err != nil {
			t.Fatal(err)
		}
		err = sets.Train.Load(&evenweave.Batch{Samples: []int32{0}})
		if err == nil || !strings.Contains(err.Error(), file+": the token at byte ") ||
			!strings.Contains(err.Error(), "is 49999: expected less than 49999") {
			t.Error(err)
		}
	}
}

// What is cut differently has another digest, and so has other text.
func TestDigestsOfWindows(t *testing.T) {
	seen := map[string]string{}
	root := put(t, map[string][]byte{"a": bytes.Repeat([]byte("abcdefg"), 10),
		"b": bytes.Repeat([]byte("abcdefg"), 11)})
	for _, name := range []string{"a", "b", "."} {
		for _, w := range []Windows{{Length: 5}, {Length: 6}, {Length: 5, Stride: 2}, {Length: 5, Test: 0.5}} {
			sets, err := Text(filepath.Join(root, name), w)
			if err != nil {
				t.Fatal(err)
			}
			for part, d := range map[string]evenweave.Data{"train": sets.Train, "test": sets.Test} {
				if d != nil && (seen[d.Digest()] != "" || len(d.Digest()) > 128) {
					t.Errorf("%s %+v: the %s part has the digest of %s", name, w, part, seen[d.Digest()])
				}
				if d != nil {
					seen[d.Digest()] = name + part
				}
			}
		}
	}
}

func TestDamagedTextIsNotTrainedOn(t *testing.T) {
	root := put(t, map[string][]byte{"big": fiveBlocks()})
	file := filepath.Join(root, "big")
	if _, err := Text(file, Windows{Length: 100}); err != nil {
		t.Fatal(err)
	}
	change(t, file, 3*blockBytes+7, []byte("?"), time.Time{})
	sets, err := Text(file, Windows{Length: 100})
	if err != nil {
		t.Fatal(err)
	}
	for sample, damaged := range map[int32]bool{5: false, 3*blockBytes/100 - 2: false, 3 * blockBytes / 100: true,
		4*blockBytes/100 - 2: true} {
		err := sets.Train.Load(&evenweave.Batch{Samples: []int32{sample}})
		if (err != nil) != damaged || damaged && !strings.Contains(err.Error(), "big: block 3 ") {
			t.Errorf("sample %d: %v", sample, err)
		}
	}
}

func TestImpossibleWindowsAreRefused(t *testing.T) {
	root := put(t, map[string][]byte{"a": []byte("0123456789")})
	for want, w := range map[string]Windows{
		"windows of 0 tokens": {}, "windows of -1 tokens": {Length: -1}, "-1 apart": {Length: 1, Stride: -1},
		"windows of 9223372036854775807": {Length: 1<<63 - 1}, "tokens of 3 bytes": {Length: 1, Width: 3},
		"a vocabulary of 0": {Length: 1, Width: 2}, "a test part of 1": {Length: 1, Test: 1},
		"a test part of -0.5":         {Length: 1, Test: -0.5},
		"0.5 and 0.5 held out":        {Length: 1, Test: 0.5, HeldOut: 0.5},
		"hold 0 windows of 10 tokens": {Length: 10}, "tokens 9 to 9 hold 0": {Length: 1, Test: 0.1},
		`pattern "["`:             {Length: 1, Match: "["},
		`no file matches "*.txt"`: {Length: 1, Match: "*.txt"},
		"a has 10 bytes: expected a multiple of the 4": {Length: 1, Width: 4, Vocabulary: 9},
	} {
		if _, err := Text(root, w); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want an error with %q", err, want)
		}
	}
	if _, err := Text(filepath.Join(root, "b"), Windows{Length: 1}); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte("some text"), []byte("more"), 3, 2, 1, 0.2)
	f.Add([]byte{1, 0, 2, 0, 3, 0}, []byte{}, 1, 0, 2, 0.0)
	f.Fuzz(func(t *testing.T, a, b []byte, length, stride, width int, test float64) {
		root := put(t, map[string][]byte{"a": a, "b": b})
		sets, err := Text(root, Windows{Length: length, Stride: stride, Width: width, Vocabulary: 70_000, Test: test})
		if err != nil {
			return
		}
		for _, d := range []evenweave.Data{sets.Train, sets.Test} {
			if d == nil {
				continue
			}
			for _, i := range []int{0, d.Len() / 2, d.Len() - 1} {
				// A token of 4 bytes may be out of the vocabulary; nothing else can go wrong.
				if err := d.Load(&evenweave.Batch{Samples: []int32{int32(i)}}); err != nil && width != 4 {
					t.Error(err)
				}
			}
		}
	})
}
