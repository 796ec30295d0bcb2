package plot

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"evenweave/internal/progress"
)

// training is like a real job: 10 epochs of 469 steps, with an evaluation each.
func training() []progress.Record {
	now := time.Unix(1_700_000_000, 0)
	random := rand.New(rand.NewPCG(1, 2))
	var records []progress.Record
	for s := 1; s <= 4690; s++ {
		trend := 0.2 + 0.5*math.Exp(-float64(s)/900) + 1.6*math.Exp(-float64(s)/40)
		records = append(records, progress.Record{Time: now, Event: progress.Step{Step: s, Epoch: (s-1)/469 + 1,
			Loss: trend * math.Exp(0.18*random.NormFloat64()), Metrics: []progress.Metric{{Name: "accuracy",
				Value: 1 - 0.36*trend + 0.025*random.NormFloat64()}}}})
		if s%469 == 0 {
			records = append(records, progress.Record{Time: now, Event: progress.Evaluation{Step: s, Epoch: s / 469,
				Figures: []progress.Figure{{Name: "accuracy", Value: 0.921 - 0.11*math.Exp(-float64(s)/1100),
					Better: 1},
					{Name: "loss", Value: 0.225 + 0.3*math.Exp(-float64(s)/1100), Better: -1}}}})
		}
	}
	return records
}

func TestPlotDrawsWhateverTheRecordsHold(t *testing.T) {
	all := training()
	now := all[0].Time
	huge := progress.Record{Time: now, Event: progress.Step{Step: 1, Epoch: 1, Loss: 1e300}}
	mae := progress.Record{Time: now, Event: progress.Step{Step: 1, Epoch: 1, Loss: 0.1, Metrics: []progress.Metric{
		{Name: "mae", Value: -3}, {Name: "bits", Value: 1e9}}}}
	perplexity := progress.Record{Time: now, Event: progress.Evaluation{Step: 1, Figures: []progress.Figure{
		{Name: "perplexity", Value: 3}}}}
	many := progress.Record{Time: now, Event: progress.Evaluation{Step: 1, Figures: make([]progress.Figure, 64)}}
	for i := range many.Event.(progress.Evaluation).Figures {
		many.Event.(progress.Evaluation).Figures[i].Name = fmt.Sprint("figure", i)
	}
	panels := map[string]int{"huge": 1, "zero": 1, "two metrics": 3, "another figure": 4, "only a figure": 1, "many": 6}
	for name, records := range map[string][]progress.Record{
		"whole": all, "first epoch": all[:300], "one step": all[:1], "two steps": all[:2],
		"evaluation": {all[469]}, "twice": append(all[:600:600], all[400:900]...), "huge": {huge},
		"two metrics": {mae}, "another figure": {mae, perplexity}, "only a figure": {perplexity}, "many": {many},
		"zero": {{Time: now, Event: progress.Step{Step: 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "curve.png")
			if keep := os.Getenv("EVENWEAVE_TEST_PLOT"); keep != "" && name == "whole" {
				path = keep
			}
			if err := Curve(path, records); err != nil {
				t.Fatal(err)
			}
			f, err := os.Open(path)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			picture, err := png.Decode(f)
			if err != nil {
				t.Fatal(err)
			}
			if got := picture.Bounds().Size(); got.X != 990 || got.Y != 440*cmp.Or(panels[name], 2) {
				t.Errorf("size %v, want 990 by 440 for each of %d curves", got, cmp.Or(panels[name], 2))
			}
			if left, _ := filepath.Glob(filepath.Join(dir, "*.tmp")); len(left) > 0 {
				t.Errorf("left behind %v", left)
			}
		})
	}
}

func TestPlotOfNothing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curve.png")
	if err := Curve(path, nil); !errors.Is(err, ErrNoCurve) {
		t.Errorf("got %v, want ErrNoCurve", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("a file is there")
	}
	if err := Curve(filepath.Join(t.TempDir(), "gone", "curve.png"), training()[:9]); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

func TestTimelineFindsTheEpochs(t *testing.T) {
	steps, _ := ordered(training())
	for from := 0; from < len(steps)-500; from += 97 { // any part that holds an epoch's first step
		x, label := timeline(steps[from:])
		if label != "epoch" || x(4690) != 10 {
			t.Fatalf("from step %d: %s, the end at %g", from+1, label, x(4690))
		}
	}
	if _, label := timeline(steps[:469]); label != "step" {
		t.Errorf("one epoch shows no length, but the axis is %q", label)
	}
}

// TestSVGNamesAxesAndMarksEpochs: the picture as text has what a reader looks for.
func TestSVGNamesAxesAndMarksEpochs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curve.SVG")
	if err := Curve(path, training()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for decoder := xml.NewDecoder(bytes.NewReader(text)); ; {
		if _, err := decoder.Token(); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for want, times := range map[string]int{">epoch</text>": 2, ">loss</text>": 1, ">accuracy (%)</text>": 1,
		">test set</text>": 1, "stroke-dasharray": 2 * 10} {
		if got := bytes.Count(text, []byte(want)); got != times {
			t.Errorf("%q is there %d times, want %d", want, got, times)
		}
	}
}
