package cnn

import (
	"fmt"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// A program is a compiled pure function of host slices. It is safe for
// concurrent use: nothing is cached or built after it was compiled.
type program struct {
	name    string
	backend compute.Backend
	graph   *graph.Graph
	inputs  []shapes.Shape
}

// compile builds and compiles a function; build gets one node per input.
func compile(b compute.Backend, name string, inputs []shapes.Shape, build func(in []*graph.Node) []*graph.Node) (p *program, err error) {
	defer recoverInto(&err, "compiling "+name)
	g := graph.NewGraph(b, name)
	nodes := make([]*graph.Node, len(inputs))
	for i, s := range inputs {
		nodes[i] = graph.Parameter(g, fmt.Sprintf("input%d", i), s)
	}
	if err := g.Compile(build(nodes)...); err != nil {
		return nil, fmt.Errorf("compiling %s: %w", name, err)
	}
	return &program{name, b, g, inputs}, nil
}

// run copies the inputs (flat slices) to the device, executes, and copies the
// results into outputs (flat slices of the right length).
func (p *program) run(outputs, inputs []any) (err error) {
	defer recoverInto(&err, "running "+p.name)
	buffers := make([]compute.Buffer, 0, len(inputs)+len(outputs))
	defer func() {
		for _, b := range buffers {
			if e := b.Finalize(); e != nil && err == nil {
				err = fmt.Errorf("running %s: releasing memory: %w", p.name, e)
			}
		}
	}()
	for i, in := range inputs {
		b, err := p.backend.BufferFromFlatData(0, in, p.inputs[i])
		if err != nil {
			return fmt.Errorf("running %s: input %d: %w", p.name, i, err)
		}
		buffers = append(buffers, b)
	}
	results, err := p.graph.Executable().Execute(buffers, nil, 0)
	if err != nil {
		return fmt.Errorf("running %s: %w", p.name, err)
	}
	buffers = append(buffers, results...)
	for i, r := range results {
		if err := r.ToFlatData(outputs[i]); err != nil {
			return fmt.Errorf("running %s: output %d: %w", p.name, i, err)
		}
	}
	return nil
}

// A lazyProgram is compiled at its first use, by whichever call comes first.
type lazyProgram struct {
	compile func() (*program, error)
	once    sync.Once
	p       *program
	err     error
}

func (l *lazyProgram) run(outputs, inputs []any) error {
	l.once.Do(func() { l.p, l.err = l.compile() })
	if l.err != nil {
		return l.err
	}
	return l.p.run(outputs, inputs)
}

// close must not overlap with run, nor be followed by it.
func (l *lazyProgram) close() {
	if l.p != nil {
		l.p.graph.Finalize()
	}
}

// recoverInto turns a panic of the library into an error.
func recoverInto(err *error, doing string) {
	switch r := recover().(type) {
	case nil:
	case error:
		*err = fmt.Errorf("%s: %w", doing, r)
	default:
		*err = fmt.Errorf("%s: %v", doing, r)
	}
}
