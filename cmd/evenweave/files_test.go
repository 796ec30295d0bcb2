package main

import (
	"bytes"
	"encoding/json"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/checkpoint"
	"evenweave/fashion/cnn"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// zeroes saves a checkpoint of the network with all weights 0, of a job on some classes ("": all).
func zeroes(t *testing.T, classes string) string {
	t.Helper()
	spec := `{"task":"fashion","options":{"recipe":"tutorial","classes":"` + classes + `","samples":100,"holdout":0,"freeze":"","init":"","outputs":0},"data":"d",
		"samples":100,"global_batch":32,"micro_batch":8,"epochs":1}`
	layout, err := state.NewLayout(cnn.Tensors(0))
	if err != nil {
		t.Fatal(err)
	}
	path, err := checkpointtest.Save(t.Context(), t.TempDir(), checkpoint.Manifest{Spec: json.RawMessage(spec)},
		state.New(layout, 100))
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// One bad picture does not keep the others from being classified; standard input is one of them.
func TestPredictGoesOnAfterABadPicture(t *testing.T) {
	dir := t.TempDir()
	path := func(name string, m image.Image, content string) string {
		var b bytes.Buffer
		if m != nil {
			if err := png.Encode(&b, m); err != nil {
				t.Fatal(err)
			}
		}
		b.WriteString(content)
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name)
	}
	thing := image.NewGray(image.Rect(0, 0, 40, 30))
	for i := 400; i < 800; i++ {
		thing.Pix[i] = 200
	}
	good, blank := path("good.png", thing, ""), path("blank.png", image.NewGray(image.Rect(0, 0, 40, 30)), "")
	bad := path("bad.png", nil, "II*\x00 no picture")
	run := func(args ...string) (out, errors string, err error) {
		cmd := program(t, append([]string{"predict", "--backend", "go", "--checkpoint", zeroes(t, "")}, args...)...)
		cmd.Stdin, err = os.Open(good)
		if err != nil {
			t.Fatal(err)
		}
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.Output()
		return string(stdout), stderr.String(), err
	}
	out, errors, err := run(good, bad, filepath.Join(dir, "none.png"), blank, "-", good)
	if err == nil || strings.Count(out, good+": ") != 2 || !strings.Contains(out, "-: T-shirt/top 10.0%") ||
		strings.Count(out, "Ankle boot") != 3 || !strings.Contains(errors, bad+": a TIFF image is not read") ||
		!strings.Contains(errors, "none.png") || !strings.Contains(errors, blank+": nothing is visible") {
		t.Errorf("%v\n%s\n%s", err, out, errors)
	}
	if out, _, err = run("--top", "1", good); err != nil || strings.Count(out, "\n") != 1 {
		t.Errorf("%v: %q", err, out)
	}
	out, _, err = run("-o", "json", bad, good)
	type predicted struct {
		Event, Image, Error string
		Read                *struct{ Format, Polarity string }
		Guesses             []struct{ Probability float64 }
	}
	var lines []predicted
	for line := range strings.Lines(out) {
		var l predicted
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, l)
	}
	if err == nil || len(lines) != 2 || lines[0].Image != bad || lines[0].Error == "" || lines[0].Read != nil ||
		lines[1].Error != "" || len(lines[1].Guesses) != 10 || lines[1].Read.Polarity != "light-on-dark" {
		t.Errorf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{}, {"--top", "0", good}, {"--polarity", "x", good}} {
		if _, errors, err := run(args...); err == nil || !strings.Contains(errors, "--help") {
			t.Errorf("%v: %v\n%s", args, err, errors)
		}
	}
}

// What evaluate measures comes as a table, as JSON, as a page, and as a picture of the mistakes; where that cannot be
// written, without it.
func TestEvaluateWritesWhatIsAsked(t *testing.T) {
	if testing.Short() {
		t.Skip("measures 1,000 images: skipped by -short")
	}
	mistakes := filepath.Join(t.TempDir(), "mistakes.png")
	from := zeroes(t, "3") // a tenth of the images
	for output, want := range map[string]string{"table": "macro F1", "text": "calibration error",
		"html": "<!doctype html>",
		"json": `"test_loss":2.3`, "yaml": "--help"} {
		picture := mistakes
		if output == "text" {
			picture = filepath.Join(from, "in a file")
		}
		out, err := program(t, "evaluate", "--backend", "go", "--checkpoint", from, "-o", output, "--png",
			picture).CombinedOutput()
		if !strings.Contains(string(out), want) || (err != nil) != (output == "yaml" || output == "text") {
			t.Errorf("-o %s: %v\n%.500s", output, err, out)
		}
	}
	f, err := os.Open(mistakes)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, err := png.Decode(f); err != nil || m.Bounds().Dx() < 200 {
		t.Errorf("%v: no picture of the mistakes", err)
	}
}
