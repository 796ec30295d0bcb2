package coordinator

import (
	"bytes"
	"context"
	"image/png"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/progress"
)

// measure evaluates the model on the test set, with what it has to show if it can, else nil.
func (e *evaluator) measure(ctx context.Context, step, epoch int) (_ []evenweave.Figure, _ *progress.Details,
	err error) {
	defer guard.Recover(&err)
	detailed, able := e.model.(evenweave.DetailedEvaluator)
	if !able || e.details == nil {
		found, err := e.model.Evaluate(ctx, e.test)
		return found, nil, err
	}
	found, details, err := detailed.EvaluateDetails(ctx, e.test)
	if err != nil {
		return nil, nil, err
	}
	shown, leftOut := encoded(details).Bounded()
	for _, what := range leftOut {
		e.log.Warn("what an evaluation shows is left out", "step", step, "what", what)
	}
	shown.Step, shown.Epoch = step, epoch
	return found, &shown, nil
}

// encoded is what a model shows as views take it: pictures as PNG files. One that cannot be encoded is empty, and is
// left out as such.
func encoded(d evenweave.Details) (out progress.Details) {
	out.Tables = d.Tables
	for _, g := range d.Galleries {
		gallery := progress.Gallery{Title: g.Title, About: g.About, Charts: g.Charts}
		for _, p := range g.Pictures[:min(len(g.Pictures), progress.MaxPictures+1)] {
			gallery.Pictures = append(gallery.Pictures, progress.Picture{PNG: pngOf(p), Caption: p.Caption})
		}
		out.Galleries = append(out.Galleries, gallery)
	}
	return out
}

func pngOf(p evenweave.Picture) []byte {
	if p.Image == nil || p.Image.Bounds().Dx() > progress.MaxSide || p.Image.Bounds().Dy() > progress.MaxSide {
		return nil
	}
	var b bytes.Buffer
	encoder := png.Encoder{CompressionLevel: png.BestCompression}
	if err := encoder.Encode(&b, p.Image); err != nil {
		return nil
	}
	return b.Bytes()
}
