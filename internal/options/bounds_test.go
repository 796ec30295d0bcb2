package options_test

import (
	"encoding/json"
	"strings"
	"testing"

	"evenweave/internal/options"
)

type bounded struct {
	Layers int     `flag:"layers" min:"1" max:"100"`
	Seed   uint64  `flag:"seed" max:"9007199254740992"`
	Long   int64   `flag:"long" min:"-3"`
	Rate   float64 `flag:"rate" above:"0" max:"0.5"`
}

// A number beyond its bounds is refused, as a flag's text and in a spec, and what was set before stays.
func TestBounds(t *testing.T) {
	for flag, row := range map[string]struct{ good, bad, says string }{
		"layers": {"1 100 7", "0 101 -5", "must be at "},
		"seed":   {"0 9007199254740992", "18446744073709551615", "must be at most 9007199254740992"},
		"long":   {"-3 9223372036854775807", "-4", "must be at least -3"},
		"rate":   {"0.5 1e-300", "0 -1", "must be above 0"},
	} {
		o := &bounded{Layers: 1, Rate: 0.5}
		s := of(t, o)
		for _, f := range s.Fields() {
			if f.Flag != flag {
				continue
			}
			for text := range strings.FieldsSeq(row.good) {
				if err := f.Set(text); err != nil {
					t.Errorf("%s: %v", flag, err)
				}
			}
			before := f.String()
			for text := range strings.FieldsSeq(row.bad) {
				err := f.Set(text)
				spec := s.Spec()
				spec[flag] = json.RawMessage(text)
				loaded := s.Load(spec)
				for _, err := range []error{err, loaded} {
					if err == nil || !strings.Contains(err.Error(), row.says) || f.String() != before {
						t.Errorf("%s: %v, and it is %s", flag, err, f)
					}
				}
			}
		}
	}
}

// Bounds that cannot hold are the programmer's to mend.
func TestBadBoundsAreNamed(t *testing.T) {
	for says, pointer := range map[string]any{
		"field A: its default is 0: it must be at least 1": &struct {
			A int `flag:"a" min:"1"`
		}{},
		"field B: its default is 0: it must be above 0": &struct {
			B float64 `flag:"b" above:"0"`
		}{},
		`field C: min:"one"`: &struct {
			C int `flag:"c" min:"one"`
		}{},
		`field D: max:"1": type string has no bounds`: &struct {
			D string `flag:"d" max:"1"`
		}{},
		`field E: max:"1e300"`: &struct {
			E float64 `flag:"e" max:"1e300"`
		}{},
		`field F: min:"NaN"`: &struct {
			F float64 `flag:"f" min:"NaN"`
		}{},
	} {
		if _, err := options.Of(pointer); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v, want an error that says %q", err, says)
		}
	}
}
