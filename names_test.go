package evenweave_test

import (
	"fmt"
	"path"
	"strings"
	"testing"

	"evenweave"
)

func TestMatchNames(t *testing.T) {
	names := []string{"conv1/kernel", "conv1/bias", "dense/kernel"}
	for patterns, want := range map[string]string{
		"":                       "[false false false]",
		"conv1/*":                "[true true false]",
		" */bias , dense/kernel": "[false true true]",
		"conv1/kernel,conv1/*,":  "[true true false]",
		"conv1":                  `"conv1" matches no name`,
		"conv1/*,nothing/*":      `"nothing/*" matches no name`,
		"[":                      `"[": ` + path.ErrBadPattern.Error(),
	} {
		matched, err := evenweave.MatchNames(patterns, names)
		got := fmt.Sprint(matched)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %s, expected %s", patterns, got, want)
		}
	}
	if matched, err := evenweave.MatchNames("a", nil); err == nil || matched != nil ||
		!strings.Contains(err.Error(), "no name") {
		t.Errorf("without names: %v, %v", matched, err)
	}
}
