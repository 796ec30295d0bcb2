package fashion

import (
	"image"

	"evenweave"
	"evenweave/evaluation"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
)

func figures(r evaluation.Result) []evenweave.Figure {
	return []evenweave.Figure{
		{Name: "accuracy", Value: r.Accuracy, Better: evenweave.Higher},
		{Name: "loss", Value: r.Loss, Better: evenweave.Lower},
	}
}

// details are what the evaluation of these images shows.
func details(r evaluation.Result, images []byte) (evenweave.Details, error) {
	return r.Details(func(sample int) (image.Image, error) {
		return pictureOf(images[sample*fashionmnist.Pixels:][:fashionmnist.Pixels]), nil
	})
}

func pictureOf(pixels []byte) image.Image {
	return &image.Gray{Pix: pixels, Stride: evaluate.ImageSide, Rect: image.Rect(0, 0, evaluate.ImageSide,
		evaluate.ImageSide)}
}
