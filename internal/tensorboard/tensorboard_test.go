package tensorboard

import (
	"bytes"
	"errors"
	"image"
	pngs "image/png"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/progress"
)

func step(n int) progress.Record {
	return progress.Record{Time: time.Unix(1, 0), Event: progress.Step{Step: n, Loss: 1 / float64(n), Workers: 2,
		Metrics: []progress.Metric{{Name: "accuracy", Value: 0.5}}}}
}

func evaluated(n int) progress.Record {
	return progress.Record{Time: time.Unix(2, 0), Event: progress.Evaluation{Step: n,
		Figures: []evenweave.Figure{{Name: "loss", Value: 0.25}}}}
}

// written returns the steps that the files of a folder hold, in order, with the first tag of each.
func written(t *testing.T, dir string) (steps []int, whole bool) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*tfevents*"))
	if err != nil {
		t.Fatal(err)
	}
	whole = true
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		r := bytes.NewReader(b)
		for {
			data, err := readRecord(r)
			if err != nil {
				whole = whole && errors.Is(err, io.EOF)
				break
			}
			one := &Writer{seen: map[int]bool{}}
			if one.note(data); one.last > 0 {
				steps = append(steps, one.last)
			}
			for n := range one.seen {
				steps = append(steps, -n)
			}
		}
	}
	return steps, whole
}

func opened(t *testing.T, dir string) *Writer {
	t.Helper()
	w, err := Open(dir, func(int64) float64 { return 0.1 })
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// Each step and evaluation is there once, whatever restarts, reports twice, or is cut off by a crash.
func TestGoesOnAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Folder)
	w := opened(t, dir)
	for n := 1; n <= 5; n++ {
		w.Observe(step(n))
	}
	w.Observe(evaluated(5))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, fileName(0))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, int64(len(b)-3)); err != nil { // the evaluation is cut off
		t.Fatal(err)
	}
	w, paused := opened(t, dir), opened(t, dir)
	for n := 3; n <= 8; n++ {
		w.Observe(step(n))
	}
	w.Observe(evaluated(5))
	w.Observe(evaluated(5))
	paused.Observe(step(6)) // a leader that woke up: into a file of its own
	if err := errors.Join(w.Close(), paused.Close()); err != nil {
		t.Fatal(err)
	}
	got, _ := written(t, dir)
	want := []int{1, 2, 3, 4, 5, 6, 7, 8, -5, 6}
	if len(got) != len(want) {
		t.Fatalf("steps %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("steps %v, want %v", got, want)
		}
	}
	if w := opened(t, dir); w.Close() != nil || w.next != 3 || w.last != 8 || !w.seen[5] {
		t.Errorf("%+v", w)
	}
	if left, _ := os.ReadDir(dir); len(left) != 3 {
		t.Errorf("a leader that had nothing to write made a file: %v", left)
	}
}

// Of a run of ten million steps some tens of thousands are kept, the newest among them.
func TestLongRunsAreThinnedOut(t *testing.T) {
	n := 0
	for s := 1; s <= 10_000_000; s++ {
		if kept(s) {
			n++
		}
	}
	if n > 50_000 || n < 20_000 || !kept(1) || !kept(9_999) || !kept(10_000_000) || kept(10_001) {
		t.Errorf("%d steps are kept", n)
	}
}

// An evaluation's pictures are written until a run has enough of them, restarts counted in.
func TestPicturesAreBounded(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Folder)
	var png bytes.Buffer
	if err := pngs.Encode(&png, image.NewGray(image.Rect(0, 0, 3, 2))); err != nil {
		t.Fatal(err)
	}
	if width, height, ok := sizeOf(png.Bytes()); !ok || width != 3 || height != 2 {
		t.Errorf("%d x %d, %v", width, height, ok)
	}
	shown := progress.Record{Time: time.Unix(3, 0), Event: Pictures{progress.Details{Step: 5,
		Galleries: []progress.Gallery{{Title: "mistakes", Pictures: []progress.Picture{{PNG: png.Bytes()}, {}}}}}}}
	w := opened(t, dir)
	w.Observe(shown)
	if err := w.Close(); err != nil || w.drew == 0 {
		t.Fatal(err, w.drew)
	}
	again := opened(t, dir)
	if again.drew < w.drew || again.last != 0 || len(again.seen) != 0 {
		t.Errorf("%+v after %+v", again, w)
	}
	again.drew = maxDrawn
	again.Observe(shown)
	if again.file != nil || again.Close() != nil {
		t.Error("pictures beyond the bound were written")
	}
}

// The checksum is that of the format: the first value is RFC 3720's for 32 zeros, masked as TensorFlow does.
func TestMaskedChecksum(t *testing.T) {
	zeros := uint32(0x8a9136aa)
	if got, want := masked(make([]byte, 32)), (zeros>>15|zeros<<17)+0xa282ead8; got != want {
		t.Errorf("%#x, want %#x", got, want)
	}
}

// A disk that fails ends the files, not the run, and is named at the end.
func TestAFullDiskIsNamed(t *testing.T) {
	dir := filepath.Join(t.TempDir(), Folder)
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	w := &Writer{dir: dir, seen: map[int]bool{}}
	w.Observe(step(1))
	w.Observe(step(2))
	if err := w.Close(); err == nil {
		t.Error("nothing was written, and nothing is said")
	}
}

func FuzzRecall(f *testing.F) {
	f.Add(record(event(time.Unix(1, 0), 3, summary([]scalar{{"train/loss", 1}}))))
	f.Fuzz(func(t *testing.T, data []byte) {
		w := &Writer{seen: map[int]bool{}}
		r := bytes.NewReader(data)
		for {
			b, err := readRecord(r)
			if err != nil {
				break
			}
			w.note(b)
		}
		w.note(data)
	})
}
