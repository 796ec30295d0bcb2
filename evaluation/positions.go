package evaluation

import (
	"fmt"
	"math"

	"evenweave"
)

// Positions measures predictions of sequences, such as of the next token, by their position.
type Positions struct {
	loss, right, weight []float64 // sums
}

// NewPositions measures sequences of a length.
func NewPositions(length int) *Positions {
	return &Positions{make([]float64, length), make([]float64, length), make([]float64, length)}
}

// Add adds sums over sequences at a position: of losses, of right predictions, and of what counts.
func (p *Positions) Add(at int, loss, right, weight float64) error {
	if sum := loss + right + weight; math.IsNaN(sum) || math.IsInf(sum, 0) {
		return fmt.Errorf("the loss at position %d is %g", at+1, loss)
	}
	p.loss[at], p.right[at], p.weight[at] = p.loss[at]+loss, p.right[at]+right, p.weight[at]+weight
	return nil
}

// Details are loss and accuracy by position, with as many positions in a row as are before it: what a model makes of
// more context.
func (p *Positions) Details() (out evenweave.Details) {
	t := evenweave.Table{Title: "By position", Columns: []string{"positions", "loss", "perplexity", "right %", "count"},
		About: "How well each place of a sequence is predicted: later ones have more before them."}
	for from, to := 0, 1; from < len(p.loss); from, to = to, 2*to {
		to = min(to, len(p.loss))
		loss, right, weight := 0.0, 0.0, 0.0
		for i := from; i < to; i++ {
			loss, right, weight = loss+p.loss[i], right+p.right[i], weight+p.weight[i]
		}
		if weight <= 0 || math.IsInf(math.Exp(loss/weight), 0) {
			continue
		}
		name := fmt.Sprint(to)
		if to > from+1 {
			name = fmt.Sprintf("%d-%d", from+1, to)
		}
		t.Rows = append(t.Rows, evenweave.Row{Name: name, Cells: []float64{loss / weight, math.Exp(loss / weight),
			percent(right / weight), weight}})
	}
	if len(t.Rows) > 0 {
		out.Tables = []evenweave.Table{t}
	}
	return out
}
