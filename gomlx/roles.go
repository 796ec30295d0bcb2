package gomlx

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
)

// variable is one of GoMLX's, as a part of the state.
type variable struct {
	evenweave.Tensor
	of   *model.Variable
	path string
	own  bool // of the model: no optimizer's, no schedule's
	// equal says that the model changes it, in the same way for each micro-batch.
	equal bool
}

func newVariable(v *model.Variable, role evenweave.Role) *variable {
	t, known := types()[v.DType()]
	if !known {
		panic(fmt.Errorf("variable %s is of type %s, which no state has", v.Path(), v.DType()))
	}
	tensor := evenweave.Tensor{Name: nameOf(v.Path()), Type: t, Shape: v.Shape().Dimensions, Role: role}
	return &variable{Tensor: tensor, of: v, path: v.Path()}
}

// nameOf is a tensor's name for people: the path without its first slash, and in printable ASCII.
func nameOf(path string) string {
	return strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return '_'
		}
		return r
	}, strings.TrimPrefix(path, "/"))
}

func types() map[dtypes.DType]evenweave.DType {
	return map[dtypes.DType]evenweave.DType{
		dtypes.Float32: evenweave.Float32, dtypes.Float64: evenweave.Float64, dtypes.BFloat16: evenweave.BFloat16,
		dtypes.Float16: evenweave.Float16, dtypes.Int32: evenweave.Int32, dtypes.Int64: evenweave.Int64,
		dtypes.Uint32: evenweave.Uint32, dtypes.Uint64: evenweave.Uint64, dtypes.Uint8: evenweave.Uint8,
		dtypes.Bool: evenweave.Bool,
	}
}

// roles says what each variable of a training graph is, in the order of a state. It refuses by name what cannot be
// exact.
func (b *builder) roles(f *forward) (all []*variable) {
	seen := map[*graph.Node]bool{}
	for v := range b.store.IterVariables() {
		if !v.InUseByGraph(f.graph) {
			continue
		}
		if v.Path() == generatorPath() {
			continue
		}
		changed := v.ChangedInGraph(f.graph)
		differs := changed && dependsOn(v.NodeValue(f.graph), f.batch, seen)
		switch role := evenweave.Kept; {
		case v.Trainable && !v.DType().IsFloat():
			panic(fmt.Errorf("variable %s is trainable and of type %s: only floating-point numbers have gradients; "+
				"call SetTrainable(false)", v.Path(), v.DType()))
		case v.Trainable && changed:
			panic(fmt.Errorf("the model changes the trainable variable %s: gradients of several micro-batches could "+
				"not be added; call SetTrainable(false), or change it in a hook (train.AddPerStepUpdateGraphFn)",
				v.Path()))
		case differs && !v.DType().IsFloat():
			panic(fmt.Errorf("the model changes the variable %s, of type %s, by what is in a micro-batch: only "+
				"floating-point numbers can be averaged over a step; count once a step instead", v.Path(), v.DType()))
		default:
			if v.Trainable {
				role = evenweave.Trained
			} else if differs {
				role = evenweave.Averaged
			}
			all = append(all, newVariable(v, role))
			all[len(all)-1].equal = changed && !differs
		}
	}
	for _, v := range all {
		v.own = !slices.ContainsFunc(schedules(), func(scope string) bool { return strings.HasPrefix(v.path, scope) })
	}
	inOrder(all)
	if len(all) == 0 || all[0].Role != evenweave.Trained {
		panic(fmt.Errorf("the model has no trainable variable: there is nothing to train"))
	}
	return all
}

// schedules are scopes of what GoMLX's schedules keep.
func schedules() []string {
	return []string{"/" + optimizer.Scope + "/", train.TrainerAbsoluteScope + "/", "/" +
		optimizer.GlobalStepVariableName}
}

// freeze follows each building of the model, for layers set their variables trainable. The generator's state never is:
// an optimizer would pass it through float32 and lose its counter.
func (b *builder) freeze() {
	if v := b.store.GetVariable(generatorPath()); v != nil {
		v.SetTrainable(false) // the model may have made all variables trainable
	}
	var weights []*model.Variable
	var names []string
	for v := range b.store.IterVariables() {
		if v.Trainable || b.frozen[v.Path()] {
			weights, names = append(weights, v), append(names, nameOf(v.Path()))
		}
	}
	frozen, err := evenweave.MatchNames(b.config.Tuning.Freeze, names)
	if err != nil {
		panic(fmt.Errorf("freeze: %w of the model's weights; `inspect` lists them", err))
	}
	for i, v := range weights {
		if frozen[i] {
			v.SetTrainable(false)
			b.frozen[v.Path()] = true
		}
	}
}

// inOrder sorts trained, averaged, kept, each by path: the order in a store depends on how it came about.
func inOrder(all []*variable) {
	rank := map[evenweave.Role]int{evenweave.Trained: 0, evenweave.Averaged: 1, evenweave.Kept: 2}
	slices.SortFunc(all, func(a, b *variable) int {
		return cmp.Or(cmp.Compare(rank[a.Role], rank[b.Role]), cmp.Compare(a.path, b.path))
	})
}

// dependsOn says whether a node is computed from one of the others. seen holds what was found to be or not.
func dependsOn(n *graph.Node, on, seen map[*graph.Node]bool) bool {
	if known, ok := seen[n]; ok {
		return known
	}
	// What a closure captures is not among the inputs: such an operation may depend on anything.
	found := on[n] || slices.Contains([]graph.NodeType{graph.NodeTypeWhile, graph.NodeTypeIf, graph.NodeTypeCall},
		n.Type())
	for _, in := range n.Inputs() {
		found = found || dependsOn(in, on, seen)
	}
	seen[n] = found
	return found
}
