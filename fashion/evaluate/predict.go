package evaluate

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"evenweave/evaluation"
)

// Guess is a class and how likely it is.
type Guess struct {
	Class       int     `json:"class"`
	Name        string  `json:"name"`
	Probability float64 `json:"probability"` // 0 to 1
}

// Top returns the n most likely classes for one image's scores, the most likely first; of equal ones the lower class
// first.
func Top(scores []float32, classes []string, n int) ([]Guess, error) {
	if len(scores) != len(classes) || len(scores) == 0 {
		return nil, fmt.Errorf("evaluate: %d scores for %d classes", len(scores), len(classes))
	}
	logs, _, err := evaluation.LogSoftmax(scores)
	if err != nil {
		return nil, fmt.Errorf("evaluate: %w", err)
	}
	guesses := make([]Guess, len(classes))
	for c := range classes {
		guesses[c] = Guess{c, classes[c], math.Exp(logs[c])}
	}
	slices.SortStableFunc(guesses, func(a, b Guess) int {
		switch {
		case scores[a.Class] > scores[b.Class]:
			return -1
		case scores[a.Class] < scores[b.Class]:
			return 1
		}
		return 0
	})
	return guesses[:min(max(n, 0), len(guesses))], nil
}

// FormatGuesses is a line for each guess, with a bar as long as it is likely.
func FormatGuesses(guesses []Guess) string {
	var b strings.Builder
	widest := 0
	for _, g := range guesses {
		widest = max(widest, utf8.RuneCountInString(g.Name))
	}
	for _, g := range guesses {
		bar := strings.Repeat("█", int(math.Round(barWidth*g.Probability)))
		fmt.Fprintln(&b, strings.TrimRight(fmt.Sprintf("  %-*s %5.1f%% %s", widest, g.Name, 100*g.Probability, bar),
			" "))
	}
	return b.String()
}

const barWidth = 40 // of a sure guess
