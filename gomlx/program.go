package gomlx

import (
	"errors"
	"fmt"
	"sync"

	"evenweave/gomlx/backend"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// program is a compiled graph. Its parameters are tensors of the state, by the path of their variable, and arguments of
// a call, by the name that the graph's builder gave them. It is safe for concurrent use.
type program struct {
	device compute.Backend
	graph  *graph.Graph
	inputs []input
	args   map[string]shapes.Shape

	mu   sync.Mutex
	idle []arguments // of calls that are over: as many as ever ran at once
}

// input is one parameter of a program: a tensor of the state, or else an argument.
type input struct {
	state *tensor
	name  string
}

// arguments are the memory of a call's inputs, by name.
type arguments map[string]*memory

// compileProgram compiles a graph with the outputs. state finds the tensor of a variable, nil where the parameter is an
// argument.
func compileProgram(device compute.Backend, g *graph.Graph, outputs []*graph.Node,
	state func(path string) *tensor) (*program, error) {
	if err := backend.CompileGraph(device, g, func() []*graph.Node { return outputs }); err != nil {
		return nil, err
	}
	p := &program{device: device, graph: g, args: map[string]shapes.Shape{}}
	for i := range g.NumParameters() {
		n := g.GetParameterByHandle(graph.ParameterHandle(i))
		in := input{name: n.GetParameterName(), state: state(n.GetParameterName())}
		if in.state == nil {
			p.args[in.name] = n.Shape()
		}
		p.inputs = append(p.inputs, in)
	}
	return p, nil
}

// take returns arguments that no call uses; put gives them back.
func (p *program) take() (arguments, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		a := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return a, nil
	}
	a := arguments{}
	for name, shape := range p.args {
		m, err := newMemory(p.device, shape)
		if err != nil {
			return nil, errors.Join(err, a.release())
		}
		a[name] = m
	}
	return a, nil
}

func (p *program) put(a arguments) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, a)
}

func (a arguments) release() (err error) {
	for _, m := range a {
		err = errors.Join(err, m.release())
	}
	return err
}

// set copies bytes into an argument, if the program has it: what a graph has no use for is no parameter of it.
func (a arguments) set(name string, bytes []byte) error {
	m := a[name]
	if m == nil {
		return nil
	}
	if len(bytes) != len(m.bytes) {
		return fmt.Errorf("%s has %d bytes, expected %d (%s)", name, len(bytes), len(m.bytes), m.shape)
	}
	copy(m.bytes, bytes)
	return m.changed()
}

// run executes the program on the present state. The caller finalizes the results.
func (p *program) run(a arguments) (results []compute.Buffer, err error) {
	defer guard.RecoverThrown(&err, "running "+p.graph.Name())
	buffers := make([]compute.Buffer, len(p.inputs))
	for i, in := range p.inputs {
		m := a[in.name]
		if in.state != nil {
			m = in.state.memory
		}
		if buffers[i], err = m.ready(); err != nil {
			return nil, fmt.Errorf("%s for %s: %w", in.name, p.graph.Name(), err)
		}
	}
	results, err = p.graph.Executable().Execute(buffers, nil, 0)
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", p.graph.Name(), err)
	}
	return results, nil
}

// close releases the program, if there is one; no call may run.
func (p *program) close() (err error) {
	if p == nil {
		return nil
	}
	for _, a := range p.idle {
		err = errors.Join(err, a.release())
	}
	p.graph.Finalize()
	return err
}

// discard finalizes results.
func discard[B compute.Buffer](results []B) (err error) {
	for _, r := range results {
		err = errors.Join(err, r.Finalize())
	}
	return err
}
