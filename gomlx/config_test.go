package gomlx

import (
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"

	"evenweave/gomlx/backend"
)

type named func(*model.Scope, []*graph.Node) []*graph.Node

// TestSignatures: models are called as train.NewTrainer calls them, whatever they take and return.
func TestSignatures(t *testing.T) {
	device, _, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Finalize()
	g := graph.NewGraph(device, "signatures")
	s := model.NewStore().RootScope()
	a := graph.Parameter(g, "a", shapes.Make(dtypes.Float32))
	b := graph.Parameter(g, "b", shapes.Make(dtypes.Float32))
	type (
		S = *model.Scope
		G = *graph.Graph
		N = *graph.Node
	)
	for i, row := range []struct {
		model any
		in    []N
		out   int
	}{
		{func(S, G) {}, []N{a}, 0}, {func(S, N) N { return a }, []N{a}, 1},
		{func(S, N, N) (N, N) { return a, b }, []N{a, b}, 2},
		{func(S, N, N, N) []N { return []N{a, b} }, []N{a, b, a}, 2},
		{func(_ S, in []N) []N { return in }, []N{a, b, a}, 3},
		{func(S, any, G) (N, N, N) { return a, b, a }, []N{a}, 3},
		{func(_ S, spec any, _ N) N { return spec.(N) }, []N{a}, 1},
		{func(_ S, _ any, in []N) {}, []N{a}, 0}, {named(func(_ S, in []N) []N { return in }), []N{b}, 1},
	} {
		c := Config{Model: row.model, Inputs: make([]shapes.Shape, len(row.in))}
		f, err := c.signature()
		if err != nil {
			t.Errorf("%d: %v", i, err)
		} else if out := f(s, b, row.in); len(out) != row.out {
			t.Errorf("%d: %d predictions, expected %d", i, len(out), row.out)
		}
	}
	for i, bad := range []any{nil, 3, func(N) N { return a }, func(S) N { return a }, func(S, ...N) N { return a },
		func(S, N) (N, error) { return a, nil }, func(S, N, G) N { return a }, func(S, N) ([]N, N) { return nil, a }} {
		if _, err := (&Config{Model: bad, Inputs: make([]shapes.Shape, 1)}).signature(); err == nil {
			t.Errorf("signature %d is taken", i)
		}
	}
}
