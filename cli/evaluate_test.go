package cli

import (
	"context"
	"encoding/json"
	"image"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave"
	"evenweave/internal/sheet"
)

// detailed is a model that has a table and pictures to show.
type detailed struct {
	evenweave.Model
	shows evenweave.Details
}

func (detailed) Evaluate(context.Context, evenweave.Data) ([]evenweave.Figure, error) {
	return nil, nil
}

func (d detailed) EvaluateDetails(_ context.Context, data evenweave.Data) ([]evenweave.Figure, evenweave.Details,
	error) {
	return []evenweave.Figure{{Name: "accuracy", Value: float64(data.Len()), Better: evenweave.Higher}}, d.shows, nil
}

// What any task's model shows is in the text, in JSON, on the page and in the picture.
func TestEvaluateShowsWhatAnyModelShows(t *testing.T) {
	p := &program{task: tiny()}
	run := func(model evenweave.Model, output, pngFile string) (string, error) {
		var out strings.Builder
		c := p.evaluate()
		c.Options.(*evaluateOptions).PNG = pngFile
		err := c.Run(t.Context(), &evenweave.Invocation{Stdout: &out, Output: output, JSON: output == "json",
			Draw: drawRows, Page: sheet.WritePage, Loaded: &evenweave.Loaded{Model: model, Step: 7,
				WeightsSHA256: "abc"}})
		return out.String(), err
	}
	picture := evenweave.Picture{Image: image.NewGray(image.Rect(0, 0, 28, 28)), Caption: "a mistake"}
	shows := evenweave.Details{
		Tables: []evenweave.Table{{Title: "Confusion\x1b", Columns: []string{"is", "even", "odd"},
			Rows: []evenweave.Row{{Name: "even", Cells: []float64{12, 0.5}}}}},
		Galleries: []evenweave.Gallery{{Title: "Mistakes", Pictures: []evenweave.Picture{10: picture}}},
	}
	for i := range shows.Galleries[0].Pictures {
		shows.Galleries[0].Pictures[i] = picture
	}
	file := filepath.Join(t.TempDir(), "mistakes.png")
	text, err := run(detailed{shows: shows}, "text", file)
	for _, want := range []string{"step 7, weights abc", "test accuracy             100.0000", "Confusion",
		"even    12  0.5"} {
		if !strings.Contains(text, want) {
			t.Errorf("%v: %q is missing:\n%s", err, want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Errorf("an escape code is printed: %q", text)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// eleven pictures are two rows
	if m, err := png.Decode(f); err != nil || m.Bounds().Dx() < 840 || m.Bounds().Dx() > 1000 || m.Bounds().Dy() < 170 {
		t.Errorf("%v: a picture of %v", err, m.Bounds())
	}
	if text, err = run(detailed{shows: shows}, "json", ""); err != nil {
		t.Fatal(err)
	}
	var line struct {
		Accuracy float64 `json:"test_accuracy"`
		Tables   []evenweave.Table
	}
	if err := json.Unmarshal([]byte(text), &line); err != nil || line.Accuracy != 100 || len(line.Tables) != 1 ||
		line.Tables[0].Rows[0].Cells[0] != 12 {
		t.Errorf("%v: %s", err, text)
	}
	if text, err = run(detailed{shows: shows}, "html", ""); err != nil || !strings.Contains(text, "a mistake") {
		t.Errorf("%v: %.300s", err, text)
	}
	text, err = run(detailed{shows: shows}, "json", filepath.Join(file, "no folder"))
	if err == nil || !strings.Contains(err.Error(), "--png") || !strings.Contains(text, `"test_accuracy":100`) {
		t.Errorf("a bad path: %v: %s", err, text)
	}
	if _, err = run(detailed{}, "text", file); err == nil || !strings.Contains(err.Error(), "shows no pictures") {
		t.Error(err)
	}
}

// diverged is a model of which most figures are no numbers any more.
type diverged struct{ detailed }

func (d diverged) EvaluateDetails(context.Context, evenweave.Data) ([]evenweave.Figure, evenweave.Details, error) {
	return []evenweave.Figure{{Name: "accuracy", Value: 0.1, Better: evenweave.Higher},
		{Name: "loss", Value: math.NaN(), Better: evenweave.Lower}}, d.shows, nil
}

// JSON has all that it can hold, and standard error says what is missing.
func TestEvaluateOfADivergedModel(t *testing.T) {
	table := func(title string, x float64) evenweave.Table {
		return evenweave.Table{Title: title, Columns: []string{"", "x"}, Rows: []evenweave.Row{{Cells: []float64{x}}}}
	}
	model := diverged{detailed{shows: evenweave.Details{Tables: []evenweave.Table{table("a", math.Inf(1)),
		table("b", 7), table("c", math.NaN())}}}}
	var out, warned strings.Builder
	c := &evenweave.Invocation{Stdout: &out, Stderr: &warned, Output: "json", JSON: true,
		Loaded: &evenweave.Loaded{Model: model, Step: 7, WeightsSHA256: "abc"}}
	p := &program{task: tiny()}
	if err := p.evaluate().Run(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	var line map[string]any
	if err := json.Unmarshal([]byte(out.String()), &line); err != nil {
		t.Fatal(err)
	}
	tables, _ := line["tables"].([]any)
	if _, there := line["test_loss"]; there || line["test_accuracy"] != 0.1 || len(tables) != 1 ||
		!strings.Contains(out.String(), `"title":"b"`) || !strings.Contains(warned.String(), "1 figures and 2 tables") {
		t.Errorf("%s%s", out.String(), warned.String())
	}
	out.Reset()
	if c.Output, c.JSON = "text", false; p.evaluate().Run(t.Context(), c) != nil || !strings.Contains(out.String(),
		"NaN") {
		t.Errorf("%s", out.String())
	}
}
