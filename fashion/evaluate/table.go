package evaluate

import (
	"fmt"
	"strings"

	"evenweave/evaluation"
)

// Table is a result for people: accuracy and loss, one row for each class, and the confusion matrix, with a dot for 0.
func Table(r evaluation.Result) string {
	var b strings.Builder
	widest := len("class")
	for _, c := range r.Classes {
		widest = max(widest, len([]rune(c.Name)))
	}
	fmt.Fprintf(&b, "test accuracy %.2f%%, test loss %.4f, %d images\n", 100*r.Accuracy, r.Loss, r.Samples)
	fmt.Fprintf(&b, "macro F1 %.2f%%, calibration error %.2f%%\n\n", 100*r.MacroF1, 100*r.ECE)
	fmt.Fprintf(&b, "   %-*s  precision  recall      F1  support\n", widest, "class")
	for i, c := range r.Classes {
		fmt.Fprintf(&b, "%2d %-*s  %8.1f%% %6.1f%% %6.1f%%  %7d\n", i, widest, c.Name, 100*c.Precision, 100*c.Recall,
			100*c.F1, c.Support)
	}
	cell := len(fmt.Sprint(r.Samples/max(1, len(r.Classes)))) + 2
	fmt.Fprintf(&b, "\n   %-*s  predicted as\n   %-*s", widest, "label", widest, "")
	for i := range r.Classes {
		fmt.Fprintf(&b, "%*d", cell, i)
	}
	b.WriteByte('\n')
	for i, row := range r.Confusion {
		fmt.Fprintf(&b, "%2d %-*s", i, widest, r.Classes[i].Name)
		for _, n := range row {
			if n == 0 {
				fmt.Fprintf(&b, "%*s", cell, ".")
			} else {
				fmt.Fprintf(&b, "%*d", cell, n)
			}
		}
		b.WriteByte('\n')
	}
	return b.String()
}
