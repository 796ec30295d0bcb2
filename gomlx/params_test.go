package gomlx

import (
	"maps"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

func TestParams(t *testing.T) {
	defaults := Params{"rate": 0.1, "layers": 2, "name": "adam", "on": false, "narrow": float32(1), "wide": int64(1)}
	got := maps.Clone(defaults)
	err := got.UnmarshalText([]byte(" rate=0.01; /encoder/rate = 0.5;layers=3;name=sgd;on=true;narrow=2.5;wide=-5;"))
	want := Params{"rate": 0.01, "/encoder/rate": 0.5, "layers": 3, "name": "sgd", "on": true, "narrow": float32(2.5),
		"wide": int64(-5)}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	text, err := got.MarshalText()
	if w := "/encoder/rate=0.5;layers=3;name=sgd;narrow=2.5;on=true;rate=0.01;wide=-5"; err != nil ||
		string(text) != w {
		t.Errorf("%q, %v, want %q", text, err, w)
	}
	for _, from := range []Params{defaults, got} { // what the text says is all that there is
		again := maps.Clone(from)
		if err := again.UnmarshalText(text); err != nil || !maps.Equal(again, want) {
			t.Errorf("%q is read as %v, %v", text, again, err)
		}
	}
	for settings, says := range map[string]string{
		"rates=1": "the nearest are rate", "rate": "expected name=value", "layers=1.5": "a value of type int",
		"on=perhaps": "a value of type bool", "rate=fast": "a value of type float64", "rate=NaN": "type float64",
		"rate=1;narow=2": `no hyperparameter "narow"; the nearest are narrow`,
		"xyz=1":          "there are layers, name, narrow, on, rate, wide",
	} {
		p := maps.Clone(defaults)
		if err := p.UnmarshalText([]byte(settings)); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, expected an error with %q", settings, err, says)
		}
		if !maps.Equal(p, defaults) {
			t.Errorf("%s is refused and changes the values to %v", settings, p)
		}
	}
	if _, err := (Params{"name": "a;b"}).MarshalText(); err == nil {
		t.Error("a text with a semicolon is written")
	}
}

// TestBackends: what a task says of GoMLX's backends is enough for --backend and for `version`.
func TestBackends(t *testing.T) {
	if b := Backends(); !slices.Equal(b.Names, []string{"auto", "xla", "xla:cuda", "go"}) {
		t.Errorf("all are %q", b.Names)
	}
	b := Backends("go", "xla")
	if name, notice, err := b.Resolve("go"); !slices.Equal(b.Names, []string{"go", "xla"}) || name != "go" ||
		notice != "" || err != nil {
		t.Errorf("%q: go is %q, %q, %v", b.Names, name, notice, err)
	}
	if !slices.ContainsFunc(b.Versions(), func(v evenweave.Version) bool { return strings.HasPrefix(v.Name, "XLA") }) {
		t.Errorf("they compute with %v, which says nothing of XLA", b.Versions())
	}
}
