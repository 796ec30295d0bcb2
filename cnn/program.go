package cnn

import (
	"errors"
	"fmt"
	"reflect"
	"sync"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// A program is a compiled pure function of host slices. It is safe for
// concurrent use.
type program struct {
	name    string
	backend compute.Backend
	graph   *graph.Graph
	inputs  []shapes.Shape

	mu   sync.Mutex
	idle []arguments // of calls that are over: as many as ever ran at once
}

// arguments are input buffers in memory that host and device share: a call fills
// them in place, which saves it the transfers, each a task of another thread.
type arguments struct {
	buffers []compute.Buffer
	flat    []any // the same memory as slices
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
	return &program{name: name, backend: b, graph: g, inputs: inputs}, nil
}

// run copies the inputs (flat slices) to the device, executes, and copies the
// results into outputs (flat slices of the right length).
func (p *program) run(outputs, inputs []any) (err error) {
	defer recoverInto(&err, "running "+p.name)
	args, err := p.take()
	if err != nil {
		return fmt.Errorf("running %s: %w", p.name, err)
	}
	defer p.put(args)
	for i, in := range inputs {
		reflect.Copy(reflect.ValueOf(args.flat[i]), reflect.ValueOf(in))
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

func (p *program) take() (a arguments, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.idle); n > 0 {
		a, p.idle = p.idle[n-1], p.idle[:n-1]
		return a, nil
	}
	for _, shape := range p.inputs {
		buffer, flat, err := p.backend.NewSharedBuffer(0, shape)
		if err != nil {
			return a, err
		}
		a.buffers, a.flat = append(a.buffers, buffer), append(a.flat, flat)
	}
	return a, nil
}

func (p *program) put(a arguments) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idle = append(p.idle, a)
}

// close releases the program; no call may run.
func (p *program) close() {
	for _, a := range p.idle {
		for _, b := range a.buffers {
			_ = b.Finalize()
		}
	}
	p.graph.Finalize()
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
		l.p.close()
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
