package fashionmnist

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tiny is a label file of four samples, and its right contents.
func tiny() (file, []byte) {
	raw := []byte{0, 0, 8, 1, 0, 0, 0, 4, 0, 9, 3, 7}
	sum := sha256.Sum256(raw)
	return labels("tiny", 4, hex.EncodeToString(sum[:])), raw
}

func pack(t *testing.T, raw []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(raw); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestEveryBadFileIsNamedAndExplained(t *testing.T) {
	f, good := tiny()
	edit := func(i int, v byte) []byte { b := bytes.Clone(good); b[i] = v; return b }
	for _, c := range []struct {
		name, file string
		content    []byte
		want       []string
	}{
		{"missing", "", nil, []string{"tiny.gz is there"}},
		{"empty", "tiny", []byte{}, []string{"not an IDX file"}},
		{"cut header", "tiny", good[:7], []string{"its header is cut off"}},
		{"cut payload", "tiny", good[:11], []string{"another length: expected 4 bytes"}},
		{"too long", "tiny", append(bytes.Clone(good), 1), []string{"another length: expected 4 bytes"}},
		{"too long, packed", "tiny.gz", pack(t, append(bytes.Clone(good), 1, 2, 3)),
			[]string{"another length: expected 4 bytes"}},
		{"magic", "tiny", edit(3, 3), []string{"its header is cut off"}},
		{"type", "tiny", edit(2, 9), []string{"begins with 00000901: expected 0000080N"}},
		{"axes", "tiny", []byte{0, 0, 8, 2, 0, 0, 0, 2, 0, 0, 0, 2, 0, 9, 3, 7},
			[]string{"it has the axes [2 2], expected [4]"}},
		{"count", "tiny", edit(7, 5), []string{"it announces 5 bytes: expected at most 4"}},
		{"label", "tiny", edit(9, 10), []string{"sample 1 has label 10, expected 0 to 9"}},
		{"contents", "tiny", edit(9, 8), []string{"contents differ", "expected " + f.sha256}},
		{"not gzip", "tiny.gz", good, []string{"tiny.gz: damaged gzip"}},
		{"cut gzip", "tiny.gz", pack(t, good)[:20], []string{"tiny.gz: damaged gzip"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if c.file != "" {
				if err := os.WriteFile(filepath.Join(dir, c.file), c.content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := f.read(dir)
			if err == nil {
				t.Fatal("accepted")
			}
			for _, want := range append(c.want, filepath.Join(dir, "tiny"), "make setup") {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("%q does not say %q", err, want)
				}
			}
		})
	}
}

func TestPlainAndPackedFilesReadAlike(t *testing.T) {
	f, good := tiny()
	for name, content := range map[string][]byte{"tiny": good, "tiny.gz": pack(t, good)} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := f.read(dir)
		if err != nil || !bytes.Equal(got, good[8:]) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
}

func TestLoadReadsTheRealData(t *testing.T) {
	dir, err := Find(os.Getenv("EVENWEAVE_DATA"))
	if err != nil {
		if dir, err = Find(filepath.Join("..", "..", ".evenweave", "data")); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); err != nil {
			t.Skipf("needs the data: %v", err)
		}
	}
	train, test, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	if train.Len() != TrainSize || test.Len() != TestSize || len(train.Image(TrainSize-1)) != Pixels {
		t.Errorf("sizes %d, %d", train.Len(), test.Len())
	}
	if got := Classes()[train.Labels[0]]; got != "Ankle boot" {
		t.Errorf("first training sample is a %s, expected Ankle boot", got)
	}
	if train.Hash == test.Hash {
		t.Error("training and test data have one hash")
	}
}

func TestSplitKeepsEverySampleOnce(t *testing.T) {
	d := &Dataset{Images: make([]byte, 5*Pixels), Labels: []uint8{0, 1, 2, 3, 4}, Hash: "x"}
	rest, held, err := d.Split(2)
	if err != nil {
		t.Fatal(err)
	}
	if got := append(bytes.Clone(rest.Labels), held.Labels...); !bytes.Equal(got, d.Labels) || held.Len() != 2 {
		t.Errorf("split into %v and %v", rest.Labels, held.Labels)
	}
	if rest.Hash == held.Hash || rest.Hash == d.Hash {
		t.Error("parts share a hash")
	}
	if all, none, err := d.Split(0); err != nil || all != d || none.Len() != 0 {
		t.Errorf("Split(0) gave %v, %v, %v", all, none, err)
	}
	for _, n := range []int{-1, 5} {
		if _, _, err := d.Split(n); err == nil {
			t.Errorf("Split(%d) accepted", n)
		}
	}
}

func TestOnlyKeepsTheSamplesOfItsClasses(t *testing.T) {
	d := &Dataset{Hash: "all", Number: NumClasses}
	for i := range 40 {
		d.Labels = append(d.Labels, uint8(i*7%NumClasses))
		d.Images = append(d.Images, bytes.Repeat([]byte{byte(i)}, Pixels)...)
	}
	part := d.Only([]uint8{2, 5})
	at := 0
	for i, label := range d.Labels {
		if label != 2 && label != 5 {
			continue
		}
		if part.Labels[at] != label || !bytes.Equal(part.Image(at), d.Image(i)) {
			t.Fatalf("sample %d is not the %dth of the whole", at, i)
		}
		at++
	}
	if part.Len() != at || part.Hash == d.Hash || part.Hash == d.Only([]uint8{2, 6}).Hash {
		t.Errorf("%d samples, want %d; hash %s", part.Len(), at, part.Hash)
	}
	if all, _ := ParseClasses("", NumClasses); d.Only(all) != d {
		t.Error("all classes are not the data set itself")
	}
}

func TestParseClasses(t *testing.T) {
	for list, want := range map[string][]uint8{"": {0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, "0-4,7": {0, 1, 2, 3, 4, 7},
		" 7, 3-4,4": {3, 4, 7}, "9": {9}} {
		if got, err := ParseClasses(list, NumClasses); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", list, got, err)
		}
	}
	for _, list := range []string{"10", "4-2", "a", "1,,2", "-1", "0-10", "1-2-3", "300"} {
		if got, err := ParseClasses(list, NumClasses); err == nil {
			t.Errorf("%q gives %v", list, got)
		}
	}
}
