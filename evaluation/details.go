package evaluation

import (
	"cmp"
	"fmt"
	"image"
	"math"
	"slices"

	"golang.org/x/image/draw"

	"evenweave"
)

// Bounds of what is shown: views refuse larger tables, and all pictures of an evaluation share 512 KiB.
const (
	maxRows     = 64
	pictureSide = 80
)

// Details are the confusion matrix and the ratios of each class, the most confident mistakes and the diagram of
// confidence. picture is what people see of a sample; nil, and nil returned: nothing, then mistakes are a table.
func (r Result) Details(picture func(sample int) (image.Image, error)) (out evenweave.Details, err error) {
	if len(r.Classes) <= maxRows {
		out.Tables = append(out.Tables, r.matrix())
	}
	out.Tables = append(out.Tables, r.byClass())
	mistakes := evenweave.Gallery{Title: "Most confident mistakes",
		About: "What each sample is, what it was taken for, and how sure the network was."}
	listed := evenweave.Table{Title: mistakes.Title, About: mistakes.About,
		Columns: []string{"sample", "probability %"}}
	for _, m := range r.Mistakes {
		what := fmt.Sprintf("%s, taken for %s", r.Classes[m.Label].Name, r.Classes[m.Predicted].Name)
		var shown image.Image
		if picture != nil {
			if shown, err = picture(m.Sample); err != nil {
				return out, err
			}
		}
		if shown == nil {
			listed.Rows = append(listed.Rows, evenweave.Row{Name: fmt.Sprintf("%d: %s", m.Sample, what),
				Cells: []float64{percent(m.Probability)}})
			continue
		}
		mistakes.Pictures = append(mistakes.Pictures, evenweave.Picture{Image: bounded(shown),
			Caption: fmt.Sprintf("%s (%.1f%%)", what, 100*m.Probability)})
	}
	if len(listed.Rows) > 0 {
		out.Tables = append(out.Tables, listed)
	} else {
		out.Galleries = append(out.Galleries, mistakes)
	}
	out.Galleries = append(out.Galleries, r.Calibration())
	return out, nil
}

func percent(x float64) float64 { return math.Round(1000*x) / 10 }

// bounded is a picture no side of which is longer than pictureSide.
func bounded(m image.Image) image.Image {
	b := m.Bounds()
	longer := max(b.Dx(), b.Dy())
	if longer <= pictureSide {
		return m
	}
	out := image.NewRGBA(image.Rect(0, 0, max(1, b.Dx()*pictureSide/longer), max(1, b.Dy()*pictureSide/longer)))
	draw.ApproxBiLinear.Scale(out, out.Rect, m, b, draw.Src, nil)
	return out
}

func (r Result) matrix() evenweave.Table {
	t := evenweave.Table{
		Title: "Confusion matrix", Shaded: true, Columns: []string{"is \\ taken for"},
		About: fmt.Sprintf("How many of the %d samples of the class of a row were taken for the class of a column.",
			r.Samples),
	}
	for i, class := range r.Classes {
		row := evenweave.Row{Name: class.Name}
		for _, n := range r.Confusion[i] {
			row.Cells = append(row.Cells, float64(n))
		}
		t.Columns, t.Rows = append(t.Columns, class.Name), append(t.Rows, row)
	}
	return t
}

// byClass are the ratios of each class; of more than a table can have, of those with the lowest F1.
func (r Result) byClass() evenweave.Table {
	t := evenweave.Table{Title: "Classes", Columns: []string{"class", "precision %", "recall %", "F1 %", "samples"},
		About: fmt.Sprintf("How many of those taken for a class are of it (precision), and how many of it were taken "+
			"for it (recall). The mean of F1, which joins both, is %.1f%%.", 100*r.MacroF1)}
	classes := r.Classes
	if len(classes) > maxRows {
		classes = slices.DeleteFunc(slices.Clone(classes), func(c Class) bool { return c.Support == 0 })
		slices.SortStableFunc(classes, func(a, b Class) int { return cmp.Compare(a.F1, b.F1) })
		classes = classes[:min(len(classes), maxRows)]
		t.Title = fmt.Sprintf("The %d worst of %d classes", len(classes), len(r.Classes))
	}
	for _, c := range classes {
		t.Rows = append(t.Rows, evenweave.Row{Name: c.Name, Cells: []float64{percent(c.Precision), percent(c.Recall),
			percent(c.F1), float64(c.Support)}})
	}
	return t
}

// Calibration is the diagram of how far confidence can be trusted.
func (r Result) Calibration() evenweave.Gallery {
	return evenweave.Gallery{Title: "Calibration", Charts: true,
		About: "How often the network was right when it was that sure. Bars that end on the diagonal: as often as it " +
			"said.",
		Pictures: []evenweave.Picture{{Image: reliability(r.Bins),
			Caption: fmt.Sprintf("expected calibration error %.1f%%", 100*r.ECE)}}}
}
