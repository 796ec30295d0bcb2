package cnn

import (
	"cmp"
	"fmt"
	"strings"

	"evenweave"
)

// Frozen returns the parameters whose names match the patterns of evenweave.MatchNames: "conv*/*" is all convolutions.
// Freezing everything is an error.
func Frozen(patterns string, classes int) (frozen []Tensor, err error) {
	all := parameters(cmp.Or(classes, defaultClasses))
	names := make([]string, len(all))
	for i, t := range all {
		names[i] = t.Name
	}
	matched, err := evenweave.MatchNames(patterns, names)
	if err != nil {
		return nil, fmt.Errorf("freeze %w: there are %s", err, strings.Join(names, ", "))
	}
	for i, t := range all {
		if matched[i] {
			frozen = append(frozen, t)
		}
	}
	if len(frozen) == len(all) {
		return nil, fmt.Errorf("freeze %q matches every tensor: nothing would be trained", patterns)
	}
	return frozen, nil
}
