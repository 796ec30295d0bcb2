package gomlx

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train"
	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
)

// builder builds graphs of a model on a store of its own. One goroutine uses it at a time; its methods panic as GoMLX
// does.
type builder struct {
	config    *Config
	function  train.ModelFn
	optimizer optimizer.Interface
	store     *model.Store
	device    compute.Backend
	frozen    map[string]bool // paths of the variables that Tuning.Freeze names
}

// newBuilder makes a store that knows the job's parameters. It has no loader: variables that a loader brings are all
// trainable, the generator's state too, and come in another order in each process.
func newBuilder(c *Config, function train.ModelFn, device compute.Backend, seed uint64) *builder {
	b := &builder{config: c, function: function, optimizer: c.Optimizer, store: model.NewStore(), device: device,
		frozen: map[string]bool{}}
	b.store.SetParams(c.Params)
	b.store.SetParam(model.ParamInitialSeed, int64(seed)) // of another type it would be taken as 0
	if b.optimizer == nil {
		b.optimizer = optimizer.FromStore(b.store)
	}
	return b
}

// forward is the part of a graph that the model's functions build.
type forward struct {
	graph               *graph.Graph
	labels, predictions []*graph.Node
	loss                *graph.Node          // with regularization; nil where there is none
	batch               map[*graph.Node]bool // what differs between micro-batches: samples and the generator's state
}

// The names of arguments have no slash at the start: paths of variables have.
func inputName(i int) string      { return fmt.Sprintf("input%d", i) }
func labelName(i int) string      { return fmt.Sprintf("label%d", i) }
func meanName(path string) string { return "mean" + path }
func generatorPath() string       { return "/" + model.RNGStateVariableName }
func batched(n int, s shapes.Shape) shapes.Shape {
	return shapes.Make(s.DType, append([]int{n}, s.Dimensions...)...)
}

// predict builds the model for n samples.
func (b *builder) predict(name string, n int, training bool) *forward {
	f := &forward{graph: graph.NewGraph(b.device, name), batch: map[*graph.Node]bool{}}
	model.SetStore(f.graph, b.store)
	b.store.SetTraining(f.graph, training)
	inputs := f.parameters(n, inputName, b.config.Inputs)
	f.predictions = b.function(b.store.RootScope(), b.config.Spec, inputs)
	b.freeze()
	return f
}

func (f *forward) parameters(n int, name func(int) string, samples []shapes.Shape) (nodes []*graph.Node) {
	for i, s := range samples {
		p := graph.Parameter(f.graph, name(i), batched(n, s))
		f.batch[p] = true
		nodes = append(nodes, p)
	}
	return nodes
}

// forward builds model and loss for n samples.
func (b *builder) forward(name string, n int, training bool) *forward {
	f := b.predict(name, n, training)
	f.labels = f.parameters(n, labelName, b.config.Labels)
	if b.config.Loss != nil {
		train.AddMainLoss(b.config.Loss(f.labels, f.predictions)) // takes the mean of what is no scalar
	}
	f.loss = train.TotalLoss(f.graph)
	if p := f.graph.GetParameterByName(generatorPath()); p != nil {
		f.batch[p] = true
	}
	return f
}

// weight is that of a micro-batch of n samples, a float32 before rounding.
func (b *builder) weight(f *forward, n int) *graph.Node {
	if b.config.Weight == nil {
		return graph.Const(f.graph, float32(n))
	}
	w := b.config.Weight(f.labels)
	if !w.Shape().IsScalar() {
		panic(fmt.Errorf("Config.Weight returns %s: expected a scalar", w.Shape()))
	}
	return graph.StopGradient(graph.ConvertDType(w, dtypes.Float32))
}

// fractions is how many parts of 1 weights are counted in.
func (c *Config) fractions() float64 {
	if c.Fractions {
		return 256
	}
	return 1
}

// gradients is the graph that computes a micro-batch.
type gradients struct {
	*graph.Graph
	variables []*variable
	// outputs are, for each variable that is summed, its gradient or weighted change, and then the sums: the loss's,
	// the weight, and Config.Counts.
	outputs []*graph.Node
	loss    dtypes.DType
}

func (b *builder) gradients(n int) *gradients {
	f := b.forward("gradients", n, true)
	if f.loss == nil {
		panic(fmt.Errorf("there is no loss: set Config.Loss, or have the model call train.AddMainLoss"))
	}
	variables := b.roles(f)
	weight := b.weight(f, n)
	rounded := graph.Round(graph.MulScalar(weight, b.config.fractions()))
	sum := graph.Mul(graph.ConvertDType(f.loss, dtypes.Float32), rounded)
	changes := map[string]*graph.Node{}
	nodes := b.store.RootScope().BuildTrainableVariablesGradientsGraph(sum)
	for v := range b.store.IterVariables() { // in the order of nodes
		if v.Trainable && v.InUseByGraph(f.graph) {
			changes[v.Path()], nodes = nodes[0], nodes[1:]
		}
	}
	out := &gradients{Graph: f.graph, variables: variables, loss: f.loss.DType()}
	for _, v := range variables {
		change := changes[v.path]
		if v.Role == evenweave.Averaged {
			change = graph.Sub(v.of.NodeValue(f.graph), f.graph.GetParameterByName(v.path))
			change = graph.Mul(graph.ConvertDType(change, dtypes.Float32), rounded)
		}
		if v.Summed() {
			out.outputs = append(out.outputs, graph.ConvertDType(change, dtypes.Float32))
		}
	}
	sums := []*graph.Node{sum, weight}
	for i, count := range b.config.Counts {
		c := count(f.labels, f.predictions)
		if !c.Shape().IsScalar() {
			panic(fmt.Errorf("Config.Counts[%d] returns %s: expected a scalar", i, c.Shape()))
		}
		sums = append(sums, graph.ConvertDType(c, dtypes.Float32))
	}
	out.outputs = append(out.outputs, graph.Stack(sums, 0))
	return out
}

// update is the graph that applies the mean of a step.
type update struct {
	*graph.Graph
	variables []*variable // those of the gradients' graph, and what only the optimizer has
	changed   []string    // paths, in the order of outputs
	outputs   []*graph.Node
}

// update builds the optimizer's step. The model is built into it too: its schedules and regularizers are part of the
// step.
func (b *builder) update(n int, of *gradients) *update {
	f := b.forwardOfZeros(n)
	known, norm := map[string]*variable{}, b.clip(f, of)
	var means []*graph.Node
	for _, v := range of.variables {
		known[v.path] = v
		if v.Role == evenweave.Averaged { // the model's own change is that of zeros
			old := v.of.NodeValue(f.graph)
			if p := f.graph.GetParameterByName(v.path); p != nil {
				old = p
			}
			v.of.SetNodeValue(graph.Add(old, b.mean(f, v)))
		}
	}
	for v := range b.store.IterVariables() { // in the order that optimizers expect
		if k := known[v.Path()]; k != nil && k.Role == evenweave.Trained {
			v.NodeValue(f.graph)
			mean := b.mean(f, k)
			if norm != nil {
				mean = graph.Mul(mean, graph.ConvertDType(norm, mean.DType()))
			}
			means = append(means, mean)
		}
	}
	b.apply(f, means, of)
	train.ExecPerStepUpdateGraphFn(f.graph)
	return b.outcome(f, known)
}

// forwardOfZeros builds the model alone, on constants: what depends on them is cut off.
func (b *builder) forwardOfZeros(n int) *forward {
	f := &forward{graph: graph.NewGraph(b.device, "update")}
	model.SetStore(f.graph, b.store)
	b.store.SetTraining(f.graph, true)
	var inputs []*graph.Node
	for _, s := range b.config.Inputs {
		inputs = append(inputs, graph.Zeros(f.graph, batched(n, s)))
	}
	b.function(b.store.RootScope(), b.config.Spec, inputs)
	b.freeze()
	return f
}

// mean is the argument with a variable's mean, of the variable's type.
func (b *builder) mean(f *forward, v *variable) *graph.Node {
	p := f.graph.GetParameterByName(meanName(v.path))
	if p == nil {
		p = graph.Parameter(f.graph, meanName(v.path), shapes.Make(dtypes.Float32, v.of.Shape().Dimensions...))
	}
	return graph.ConvertDType(p, v.of.DType())
}

// clip is the factor that shortens the gradient of all weights together to Config.ClipNorm; nil: none.
func (b *builder) clip(f *forward, of *gradients) *graph.Node {
	if b.config.ClipNorm <= 0 {
		return nil
	}
	squares := graph.Const(f.graph, float32(0))
	for _, v := range of.variables {
		if v.Role == evenweave.Trained {
			squares = graph.Add(squares,
				graph.ReduceAllSum(graph.Square(graph.ConvertDType(b.mean(f, v), dtypes.Float32))))
		}
	}
	longest := graph.Const(f.graph, float32(b.config.ClipNorm))
	return graph.Div(longest, graph.Max(longest, graph.Sqrt(squares)))
}

// apply has the optimizer update the weights. One that takes no gradients gets a loss whose gradient they are.
func (b *builder) apply(f *forward, means []*graph.Node, of *gradients) {
	root := b.store.RootScope()
	if o, ok := b.optimizer.(train.OptimizeWithGradients); ok {
		o.UpdateGraphWithGradients(root, means, of.loss)
		return
	}
	loss, at := graph.ScalarZero(f.graph, of.loss), 0
	for v := range b.store.IterVariables() {
		if v.Trainable && v.InUseByGraph(f.graph) {
			product := graph.ReduceAllSum(graph.Mul(v.NodeValue(f.graph), graph.StopGradient(means[at])))
			loss = graph.Add(loss, graph.ConvertDType(product, of.loss))
			at++
		}
	}
	b.optimizer.UpdateGraph(root, f.graph, loss)
}

// outcome collects what the step changes.
func (b *builder) outcome(f *forward, known map[string]*variable) *update {
	out := &update{Graph: f.graph}
	for v := range b.store.IterVariables() {
		k := known[v.Path()]
		if k == nil && v.InUseByGraph(f.graph) && v.Path() != generatorPath() {
			k = newVariable(v, evenweave.Kept)
		}
		if k == nil {
			continue
		}
		out.variables = append(out.variables, k)
		if v.InUseByGraph(f.graph) && v.ChangedInGraph(f.graph) {
			out.changed = append(out.changed, v.Path())
			out.outputs = append(out.outputs, v.NodeValue(f.graph))
		}
	}
	return out
}
