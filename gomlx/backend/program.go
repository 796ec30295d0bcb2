package backend

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"evenweave/internal/guard"
	"evenweave/internal/processors"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// A Program is a compiled pure function of host slices. It is safe for concurrent use.
type Program struct {
	name    string
	backend compute.Backend
	graph   *graph.Graph
	inputs  []shapes.Shape

	mu   sync.Mutex
	idle []*arguments // of calls that are over: as many as ever ran at once
}

// arguments are input buffers in memory that host and device share: a call fills them in place, which saves it the
// transfers, each a task of another thread.
type arguments struct {
	buffers []compute.Buffer
	flat    []any // the same memory as slices; nil where the device shares none
}

func (a *arguments) release() {
	for _, b := range a.buffers {
		_ = b.Finalize()
	}
}

// Compile builds and compiles a function; build gets one node for each input.
func Compile(b compute.Backend, name string, inputs []shapes.Shape,
	build func(in []*graph.Node) []*graph.Node) (p *Program, err error) {
	defer guard.RecoverThrown(&err, "compiling "+name)
	g := graph.NewGraph(b, name)
	nodes := make([]*graph.Node, len(inputs))
	for i, s := range inputs {
		nodes[i] = graph.Parameter(g, fmt.Sprintf("input%d", i), s)
	}
	if err := CompileGraph(b, g, func() []*graph.Node { return build(nodes) }); err != nil {
		return nil, err
	}
	return &Program{name: name, backend: b, graph: g, inputs: inputs}, nil
}

// CompileGraph compiles a graph with the outputs that build returns, for calls that each run on one thread.
func CompileGraph(b compute.Backend, g *graph.Graph, build func() []*graph.Node) (err error) {
	defer guard.RecoverThrown(&err, "compiling "+g.Name())
	do := func() error { return g.Compile(build()...) }
	if b.HasSharedBuffers() { // it computes on processors
		// XLA splits operations into as many parts as it sees of them, though each call has one: on two of them a
		// gradient call took twice the time.
		err = processors.OnOne(do)
	} else {
		err = do() // all of them help to compile for a GPU
	}
	if err != nil {
		return fmt.Errorf("compiling %s: %w", g.Name(), err)
	}
	return nil
}

// Graph is what was compiled.
func (p *Program) Graph() *graph.Graph { return p.graph }

// Run copies the inputs (flat slices) to the device, executes, and copies the results into outputs (flat slices of the
// right length).
func (p *Program) Run(outputs, inputs []any) (err error) {
	defer guard.RecoverThrown(&err, "running "+p.name)
	args, err := p.take()
	if err != nil {
		return fmt.Errorf("running %s: %w", p.name, err)
	}
	defer p.put(args)
	if err := args.fill(p, inputs); err != nil {
		return fmt.Errorf("running %s: %w", p.name, err)
	}
	results, err := p.graph.Executable().Execute(args.buffers, nil, 0)
	if err != nil {
		return fmt.Errorf("running %s: %w", p.name, err)
	}
	for i, r := range results {
		err = errors.Join(err, r.ToFlatData(outputs[i]), r.Finalize())
	}
	if err != nil {
		return fmt.Errorf("running %s: results: %w", p.name, err)
	}
	return nil
}

// take returns arguments that no call uses: shared memory, or none yet on a device that shares none with the host (a
// GPU).
func (p *Program) take() (*arguments, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		a := p.idle[n-1]
		p.idle = p.idle[:n-1]
		return a, nil
	}
	a := new(arguments)
	if !p.backend.HasSharedBuffers() {
		return a, nil
	}
	for i, shape := range p.inputs {
		buffer, flat, err := p.backend.NewSharedBuffer(0, shape)
		if err != nil {
			a.release()
			return nil, fmt.Errorf("memory for input %d: %w", i, err)
		}
		a.buffers, a.flat = append(a.buffers, buffer), append(a.flat, flat)
	}
	return a, nil
}

// fill copies the inputs into the shared memory, or to the device.
func (a *arguments) fill(p *Program, inputs []any) error {
	for i, in := range inputs {
		if n := reflect.ValueOf(in).Len(); n != p.inputs[i].Size() {
			return fmt.Errorf("input %d has %d elements, expected %d", i, n, p.inputs[i].Size())
		}
		if a.flat == nil {
			b, err := p.backend.BufferFromFlatData(0, in, p.inputs[i])
			if err != nil {
				return fmt.Errorf("input %d: %w", i, err)
			}
			a.buffers = append(a.buffers, b)
		} else {
			reflect.Copy(reflect.ValueOf(a.flat[i]), reflect.ValueOf(in))
		}
	}
	return nil
}

// put gives arguments back for the next call to use.
func (p *Program) put(a *arguments) {
	if a.flat == nil {
		a.release()
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, a)
}

// Close releases the program; no call may run.
func (p *Program) Close() {
	for _, a := range p.idle {
		a.release()
	}
	p.graph.Finalize()
}

// A Lazy program is compiled by its first call.
type Lazy struct {
	Compile func() (*Program, error)
	once    sync.Once
	p       *Program
	err     error
}

// Run is Program.Run, after compiling. Every call returns an error of compiling.
func (l *Lazy) Run(outputs, inputs []any) error {
	l.once.Do(func() { l.p, l.err = l.Compile() })
	if l.err != nil {
		return l.err
	}
	return l.p.Run(outputs, inputs)
}

// Close must not overlap with Run, nor may Run follow it. It reports whether the program was ever used.
func (l *Lazy) Close() (used bool) {
	if l.p != nil {
		l.p.Close()
	}
	return l.p != nil || l.err != nil
}
