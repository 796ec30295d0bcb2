package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"image"
	"image/color"
	"log/slog"
	"strings"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/progress"
)

// showing is a model that shows something, and counts the passes over the data.
type showing struct {
	*example.Softmax
	details evenweave.Details
	passes  *int
}

func (m showing) Evaluate(context.Context, evenweave.Data) ([]evenweave.Figure, error) {
	*m.passes++
	return []evenweave.Figure{{Name: "mae", Value: 1}}, nil
}

func (m showing) EvaluateDetails(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, evenweave.Details,
	error) {
	found, err := m.Evaluate(ctx, data)
	return found, m.details, err
}

// black is a picture of any size.
type black struct{ bounds image.Rectangle }

func (b black) ColorModel() color.Model { return color.GrayModel }
func (b black) Bounds() image.Rectangle { return b.bounds }
func (b black) At(int, int) color.Color { return color.Gray{} }

type seenDetails struct{ all []progress.Details }

func (s *seenDetails) ObserveDetails(_ time.Time, d progress.Details) { s.all = append(s.all, d) }

// What a model shows comes with its figures, in one pass over the test set; what is too large is named and left out.
func TestDetailsComeWithTheFigures(t *testing.T) {
	square := func(side int) evenweave.Gallery {
		return evenweave.Gallery{Title: fmt.Sprint("side ", side), Pictures: []evenweave.Picture{
			{Image: black{image.Rect(0, 0, side, side)}, Caption: "a boot"}}}
	}
	var log bytes.Buffer
	passes, seen := 0, &seenDetails{}
	e := &evaluator{details: seen, log: slog.New(slog.NewTextHandler(&log, nil)), model: showing{example.NewSoftmax(),
		evenweave.Details{
			Tables: []evenweave.Table{{Title: "confusion", Columns: []string{"", "a"},
				Rows: []evenweave.Row{{Name: "a", Cells: []float64{7}}}}},
			Galleries: []evenweave.Gallery{square(28), square(1 << 20),
				{Title: "none", Pictures: []evenweave.Picture{{}}}},
		}, &passes}}
	found, err := e.measure(t.Context(), 40, 2)
	if err != nil || len(found) != 1 || passes != 1 || len(seen.all) != 1 {
		t.Fatalf("figures %v, %v, %d passes, %d details", found, err, passes, len(seen.all))
	}
	d := seen.all[0]
	if d.Step != 40 || d.Epoch != 2 || d.Tables[0].Rows[0].Cells[0] != 7 ||
		d.Galleries[0].Pictures[0].Caption != "a boot" ||
		len(d.Galleries[0].Pictures[0].PNG) == 0 || len(d.Galleries[1].Pictures)+len(d.Galleries[2].Pictures) != 0 {
		t.Errorf("shown: %+v", d)
	}
	if n := strings.Count(log.String(), "left out"); n != 2 {
		t.Errorf("%d are named: %s", n, log.String())
	}
}
