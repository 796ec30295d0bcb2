package coordinator

import (
	"strings"
	"testing"

	"evenweave/checkpoint"
	"evenweave/internal/example"
	"evenweave/internal/state"
)

// A run is gone on from only with the tensors that this build's states have. Those of builds before, which had no
// exponents, are named as such.
func TestOtherTensorsAreNotGoneOnFrom(t *testing.T) {
	model := example.NewSoftmax().Tensors()
	layout, err := state.OfJob(model)
	if err != nil {
		t.Fatal(err)
	}
	before, err := layout.OfModel()
	if err != nil {
		t.Fatal(err)
	}
	model[0].Name = "other"
	other, err := state.OfJob(model)
	if err != nil {
		t.Fatal(err)
	}
	a := &archive{layout: layout}
	for says, l := range map[string]*state.Layout{"": layout, "evenweave/exponents": before,
		"no tensor weights, which the model has": other} {
		e := checkpoint.Entry{Path: "step-5", Manifest: checkpoint.Manifest{Tensors: checkpoint.Tensors(l)}}
		if err := a.fits(e); (err == nil) != (says == "") || err != nil && (!strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), "step-5")) {
			t.Errorf("%v, expected %q", err, says)
		}
	}
}
