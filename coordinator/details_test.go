package coordinator

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"log/slog"
	"slices"
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
	return []evenweave.Figure{{Name: "mae", Value: 1, Better: evenweave.Lower}}, nil
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

type emitFunc func(progress.Event)

func (f emitFunc) emit(e progress.Event) { f(e) }

type detailsFunc func(progress.Details)

func (f detailsFunc) ObserveDetails(_ time.Time, d progress.Details) { f(d) }

// What a model shows comes with its figures, in one pass over the test set; what is too large is named and left out.
func TestDetailsComeWithTheFigures(t *testing.T) {
	square := func(side int) evenweave.Gallery {
		return evenweave.Gallery{Title: fmt.Sprint("side ", side), Pictures: []evenweave.Picture{
			{Image: black{image.Rect(0, 0, side, side)}, Caption: "a boot"}}}
	}
	var log bytes.Buffer
	passes := 0
	shown := evenweave.Details{
		Tables: []evenweave.Table{{Title: "confusion", Columns: []string{"", "a"},
			Rows: []evenweave.Row{{Name: "a", Cells: []float64{7}}}}},
		Galleries: []evenweave.Gallery{square(28), square(1 << 20),
			{Title: "none", Pictures: []evenweave.Picture{{}}}},
	}
	e := &evaluator{details: detailsFunc(nil), log: slog.New(slog.NewTextHandler(&log, nil)),
		model: showing{example.NewSoftmax(), shown, &passes}}
	found, d, err := e.measure(t.Context(), 40, 2)
	if err != nil || len(found) != 1 || passes != 1 || d == nil {
		t.Fatalf("figures %v, %v, %d passes, details %v", found, err, passes, d)
	}
	if d.Step != 40 || d.Epoch != 2 || d.Tables[0].Rows[0].Cells[0] != 7 ||
		d.Galleries[0].Pictures[0].Caption != "a boot" ||
		len(d.Galleries[0].Pictures[0].PNG) == 0 || len(d.Galleries[1].Pictures)+len(d.Galleries[2].Pictures) != 0 {
		t.Errorf("shown: %+v", d)
	}
	if n := strings.Count(log.String(), "left out"); n != 2 {
		t.Errorf("%d are named: %s", n, log.String())
	}
}

// A view never has details without their figures: they come after them, and an evaluation that fails shows none.
func TestDetailsFollowTheirFigures(t *testing.T) {
	var order []string
	e := &evaluator{log: slog.New(slog.DiscardHandler),
		events:  emitFunc(func(e progress.Event) { order = append(order, fmt.Sprintf("%T", e)) }),
		details: detailsFunc(func(d progress.Details) { order = append(order, fmt.Sprint("details of ", d.Step)) })}
	e.report(40, progress.Evaluation{Step: 40}, &progress.Details{Step: 40}, nil)
	e.report(50, progress.Evaluation{Step: 50}, &progress.Details{Step: 50}, errors.New("its loss is not a number"))
	e.report(60, progress.Evaluation{Step: 60}, nil, nil)
	want := []string{"progress.Evaluation", "details of 40", "progress.Warning", "progress.Evaluation"}
	if !slices.Equal(order, want) {
		t.Errorf("reported %q, want %q", order, want)
	}
}
