package fashion

import (
	"fmt"
	"image"
	"math"

	"evenweave"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
)

func figures(r evaluate.Result) []evenweave.Figure {
	return []evenweave.Figure{
		{Name: "accuracy", Value: r.Accuracy, Better: evenweave.Higher},
		{Name: "loss", Value: r.Loss, Better: evenweave.Lower},
	}
}

// maxMatrix is how many classes a confusion matrix is drawn for: people cannot read a larger one, and views refuse it.
const maxMatrix = 64

// details are the confusion matrix and the most confident mistakes. images are those that were measured.
func details(r evaluate.Result, images []byte) evenweave.Details {
	matrix := evenweave.Table{
		Title: "Confusion matrix", Shaded: true, Columns: []string{"is \\ taken for"},
		About: fmt.Sprintf("How many of the %d test images of the class of a row were taken for the class of a column.",
			r.Images),
	}
	for i, class := range r.Classes {
		row := evenweave.Row{Name: class.Name}
		for _, n := range r.Confusion[i] {
			row.Cells = append(row.Cells, float64(n))
		}
		matrix.Columns, matrix.Rows = append(matrix.Columns, class.Name), append(matrix.Rows, row)
	}
	mistakes := evenweave.Gallery{Title: "Most confident mistakes",
		About: "What each image is, what it was taken for, and how sure the network was."}
	for _, m := range r.Mistakes {
		mistakes.Pictures = append(mistakes.Pictures, evenweave.Picture{
			Image: pictureOf(images[m.Image*fashionmnist.Pixels:][:fashionmnist.Pixels]),
			Caption: fmt.Sprintf("%s, taken for %s (%.1f%%)", r.Classes[m.Label].Name, r.Classes[m.Predicted].Name,
				100*m.Probability),
		})
	}
	out := evenweave.Details{Galleries: []evenweave.Gallery{mistakes, reliability(r)}}
	if len(r.Classes) <= maxMatrix {
		out.Tables = []evenweave.Table{matrix, byClass(r)}
	}
	return out
}

// byClass are the ratios of each class.
func byClass(r evaluate.Result) evenweave.Table {
	t := evenweave.Table{Title: "Classes", Columns: []string{"class", "precision %", "recall %", "F1 %", "images"},
		About: fmt.Sprintf("How many of those taken for a class are of it (precision), and how many of it were taken "+
			"for it (recall). The mean of F1, which joins both, is %.1f%%.", 100*r.MacroF1)}
	percent := func(x float64) float64 { return math.Round(1000*x) / 10 }
	for _, c := range r.Classes {
		t.Rows = append(t.Rows, evenweave.Row{Name: c.Name, Cells: []float64{percent(c.Precision), percent(c.Recall),
			percent(c.F1), float64(c.Support)}})
	}
	return t
}

// reliability is the diagram of how far confidence can be trusted.
func reliability(r evaluate.Result) evenweave.Gallery {
	return evenweave.Gallery{Title: "Calibration", Charts: true,
		About: "How often the network was right when it was that sure. Bars that end on the diagonal: as often as it " +
			"said.",
		Pictures: []evenweave.Picture{{Image: evaluate.Reliability(r.Bins),
			Caption: fmt.Sprintf("expected calibration error %.1f%%", 100*r.ECE)}}}
}

func pictureOf(pixels []byte) image.Image {
	return &image.Gray{Pix: pixels, Stride: evaluate.ImageSide, Rect: image.Rect(0, 0, evaluate.ImageSide,
		evaluate.ImageSide)}
}
