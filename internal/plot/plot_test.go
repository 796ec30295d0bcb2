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

	"evenweave"
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
				Figures: []evenweave.Figure{{Name: "accuracy", Value: 0.921 - 0.11*math.Exp(-float64(s)/1100),
					Better: 1},
					{Name: "loss", Value: 0.225 + 0.3*math.Exp(-float64(s)/1100), Better: -1}}}})
		}
	}
	return records
}

func collected(records []progress.Record) *Curve {
	var c Curve
	for _, r := range records {
		c.Add(r)
	}
	return &c
}

func drawn(path string, records []progress.Record) error { return collected(records).Draw(path) }

func TestPlotDrawsWhateverTheRecordsHold(t *testing.T) {
	all := training()
	now := all[0].Time
	huge := progress.Record{Time: now, Event: progress.Step{Step: 1, Epoch: 1, Loss: 1e300}}
	mae := progress.Record{Time: now, Event: progress.Step{Step: 1, Epoch: 1, Loss: 0.1, Metrics: []progress.Metric{
		{Name: "mae", Value: -3}, {Name: "bits", Value: 1e9}}}}
	perplexity := progress.Record{Time: now, Event: progress.Evaluation{Step: 1, Figures: []evenweave.Figure{
		{Name: "perplexity", Value: 3}}}}
	many := progress.Record{Time: now, Event: progress.Evaluation{Step: 1, Figures: make([]evenweave.Figure, 64)}}
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
			if err := drawn(path, records); err != nil {
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
	if err := drawn(path, nil); !errors.Is(err, ErrNoCurve) {
		t.Errorf("got %v, want ErrNoCurve", err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Error("a file is there")
	}
	if err := drawn(filepath.Join(t.TempDir(), "gone", "curve.png"), training()[:9]); err == nil {
		t.Error("no error for a folder that is not there")
	}
}

func TestTimelineFindsTheEpochs(t *testing.T) {
	all := training()
	for from := 0; from < len(all)-500; from += 97 { // any part that holds an epoch's first step
		courses, label := collected(all[from:]).courses()
		if end := courses[0].train[len(courses[0].train)-1].x; label != "epoch" || end != 10 {
			t.Fatalf("from line %d: %s, the end at %g", from+1, label, end)
		}
	}
	if _, label := collected(all[:469]).courses(); label != "step" {
		t.Errorf("one epoch shows no length, but the axis is %q", label)
	}
}

// A line of millions of steps is kept in bounded memory; its ends, its mean and what is drawn of it stay.
func TestLongLinesAreThinned(t *testing.T) {
	for _, n := range []int{1, maxPoints - 1, maxPoints, maxPoints + 1, 3*maxPoints + 77, 10 * maxPoints} {
		var s series
		for i := range n {
			s.add(point{float64(i), 7 - float64(i)})
			s.add(point{0, math.NaN()})
		}
		all := s.over(2)
		group, sum := float64(s.group+1), 0.0
		for i, p := range all {
			if p.y+2*p.x != 7 || i > 0 && p.x <= all[i-1].x {
				t.Fatalf("%d points: point %d is %v after %v", n, i, p, all[max(0, i-1)])
			}
			if sum += p.x * group; i == len(all)-1 && s.n > 0 {
				sum -= p.x * (group - float64(s.n))
			}
		}
		if end := float64(n-1) / 2; len(all) > maxPoints || cap(s.points) > 2*maxPoints || all[0].x > group/4 ||
			all[len(all)-1].x < end-group/4 || math.Abs(sum/float64(n)-end/2) > 1e-6 ||
			n < maxPoints && len(all) != n {
			t.Errorf("%d points are %d, groups of %v, from %v to %v, with the mean %v", n, len(all), group, all[0],
				all[len(all)-1], sum/float64(n))
		}
	}
}

// TestSVGNamesAxesAndMarksEpochs: the picture as text has what a reader looks for.
func TestSVGNamesAxesAndMarksEpochs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "curve.SVG")
	if err := drawn(path, training()); err != nil {
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
