// Package evaluate measures a classifier of images on a labelled set and shows the result.
package evaluate

import (
	"context"
	"fmt"

	"evenweave/evaluation"
)

// BatchSize is the most images of one call of logits. The last call's n may be smaller; a program of fixed shape pads.
const BatchSize = 250

// Evaluate gives every image to logits exactly once, in order, and compares the predictions with labels.
//
// images holds len(labels) images of imageSize bytes each. logits reads the first n images of its argument and fills
// dst, n rows of len(classes) scores; it must keep neither slice. A prediction is the class with the highest score, the
// first of equal ones. The result depends on the scores alone, not on the batches. Evaluate stops between batches when
// ctx is done.
func Evaluate(ctx context.Context, logits func(images []byte, n int, dst []float32) error,
	images []byte, imageSize int, labels []uint8, classes []string) (evaluation.Result, error) {
	if err := check(images, imageSize, labels, classes); err != nil {
		return evaluation.Result{}, err
	}
	counted, err := evaluation.NewClasses(classes)
	if err != nil {
		return evaluation.Result{}, fmt.Errorf("evaluate: %w", err)
	}
	k := len(classes)
	dst := make([]float32, BatchSize*k)
	for at := 0; at < len(labels); at += BatchSize {
		if err := ctx.Err(); err != nil {
			return evaluation.Result{}, fmt.Errorf("evaluate: stopped at image %d of %d: %w", at, len(labels),
				context.Cause(ctx))
		}
		n := min(BatchSize, len(labels)-at)
		if err := logits(images[at*imageSize:(at+n)*imageSize], n, dst[:n*k]); err != nil {
			return evaluation.Result{}, fmt.Errorf("evaluate: images %d to %d: %w", at, at+n-1, err)
		}
		for i := range n {
			if err := counted.Add(at+i, int(labels[at+i]), dst[i*k:(i+1)*k]); err != nil {
				return evaluation.Result{}, fmt.Errorf("evaluate: %w", err)
			}
		}
	}
	return counted.Result(), nil
}

func check(images []byte, imageSize int, labels []uint8, classes []string) error {
	switch {
	case len(labels) == 0 || len(classes) == 0 || imageSize <= 0:
		return fmt.Errorf("evaluate: %d labels, %d classes, images of %d bytes: want at least one of each",
			len(labels), len(classes), imageSize)
	case len(images) != len(labels)*imageSize:
		return fmt.Errorf("evaluate: %d bytes of images, want %d: %d labels, %d bytes an image",
			len(images), len(labels)*imageSize, len(labels), imageSize)
	}
	for i, l := range labels {
		if int(l) >= len(classes) {
			return fmt.Errorf("evaluate: label of image %d is %d, want 0 to %d", i, l, len(classes)-1)
		}
	}
	return nil
}
