package cnn

import (
	"cmp"
	"fmt"
	"path"
	"strings"
)

// Frozen returns the parameters whose names match one of the patterns of path.Match, separated by commas: "conv*/*" is
// all convolutions. A pattern that matches nothing is an error, and so is freezing everything.
func Frozen(patterns string, classes int) ([]Tensor, error) {
	if patterns == "" {
		return nil, nil
	}
	all := parameters(cmp.Or(classes, defaultClasses))
	chosen := make([]bool, len(all))
	for pattern := range strings.SplitSeq(patterns, ",") {
		matched := false
		for i, t := range all {
			ok, err := path.Match(strings.TrimSpace(pattern), t.Name)
			if err != nil {
				return nil, fmt.Errorf("freeze %q: %w", pattern, err)
			}
			chosen[i] = chosen[i] || ok
			matched = matched || ok
		}
		if !matched {
			return nil, fmt.Errorf("freeze %q matches no tensor: there are %s", pattern, names(all))
		}
	}
	var frozen []Tensor
	for i, t := range all {
		if chosen[i] {
			frozen = append(frozen, t)
		}
	}
	if len(frozen) == len(all) {
		return nil, fmt.Errorf("freeze %q matches every tensor: nothing would be trained", patterns)
	}
	return frozen, nil
}

func names(tensors []Tensor) string {
	list := make([]string, len(tensors))
	for i, t := range tensors {
		list[i] = t.Name
	}
	return strings.Join(list, ", ")
}
