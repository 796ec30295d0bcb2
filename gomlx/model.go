package gomlx

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"evenweave"
	"evenweave/gomlx/backend"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/train"
)

// Model is a GoMLX model with its optimizer, and their state on one device: an evenweave.Model whose batches hold a
// *dataset.Content.
type Model struct {
	config   Config
	setup    evenweave.Setup
	function train.ModelFn
	device   compute.Backend
	state    []*tensor
	byPath   map[string]*tensor
	summed   int // how many of the state, from the start, are trained or averaged
	layers   []evenweave.Layer

	building sync.Mutex // builder and the maps of programs
	builder  *builder
	// Programs by the number of samples, compiled when they are first needed.
	of, predicting map[int]*program
	metrics        map[int]*evaluator
	updating       []part // of an update; none until they are compiled
	// Updates of this process, and after how many freed memory is returned next: seldom, for the following steps fault
	// in again what they use, and not in the first steps of a member that joins, because the others wait for it.
	updates, returns int

	warned sync.Once // of a count beyond the weight

	mu     sync.RWMutex // the state: its readers compute, its writers update
	closed bool
}

// tensor is a part of the state.
type tensor struct {
	evenweave.Tensor
	path string
	own  bool // of the model: no optimizer's, no schedule's
	// equal says that the model changes it, in the same way for each micro-batch.
	equal bool
	*memory
}

// New builds the model's graphs, finds the roles of its variables and, unless setup says that it only evaluates,
// compiles them. The state is zero until Init or Write; Close releases it.
func New(setup evenweave.Setup, config Config) (*Model, error) {
	function, err := config.signature()
	switch {
	case err != nil:
		return nil, err
	case setup.MicroBatch < 1:
		return nil, fmt.Errorf("micro-batch %d: must be at least 1", setup.MicroBatch)
	case len(config.Inputs) == 0:
		return nil, errNoInputs
	}
	if setup.Log == nil {
		setup.Log = slog.New(slog.DiscardHandler)
	}
	if setup.Context == nil {
		setup.Context = context.Background()
	}
	device, name, notice, err := backend.Open(cmp.Or(setup.Backend, "auto"))
	if err != nil {
		return nil, err
	}
	for _, s := range []string{notice, config.notice()} {
		if s != "" {
			setup.Log.Warn(s)
		}
	}
	m, err := newModel(setup, config, function, device)
	if err != nil && compute.IsNotImplemented(err) && name == "go" {
		err = fmt.Errorf("%w (the \"go\" backend lacks this operation: train with --backend xla)", err)
	}
	return m, err
}

var errNoInputs = errors.New("Config.Inputs is empty: name the shape of each input of one sample")

// unopened is a model on a device that it then owns.
func unopened(setup evenweave.Setup, config Config, function train.ModelFn, device compute.Backend) *Model {
	return &Model{config: config, setup: setup, function: function, device: device, byPath: map[string]*tensor{},
		of: map[int]*program{}, predicting: map[int]*program{}, metrics: map[int]*evaluator{}, returns: 8}
}

// newModel is New on a device.
func newModel(setup evenweave.Setup, config Config, function train.ModelFn, device compute.Backend) (*Model, error) {
	m := unopened(setup, config, function, device)
	err := m.open()
	if err == nil && !setup.EvaluateOnly && setup.Samples%setup.MicroBatch > 0 {
		_, err = m.gradients(setup.Samples % setup.MicroBatch) // of an epoch's last samples
	}
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return m, nil
}

func (m *Model) open() (err error) {
	m.building.Lock()
	defer m.building.Unlock()
	m.builder, err = m.newBuilder(m.setup.Seed)
	if err != nil {
		return err
	}
	g, u, err := m.builder.training(m.setup.MicroBatch)
	if err != nil {
		return err
	}
	if err := m.layOut(u.variables); err != nil {
		return err
	}
	m.layers = layersOf(&m.config, u.variables)
	if m.setup.EvaluateOnly {
		g.Finalize()
		u.Finalize()
		return nil
	}
	if m.of[m.setup.MicroBatch], err = m.compile(g.Graph, g.outputs); err != nil {
		return err
	}
	return m.compileUpdate(u, g, m.partsOf(u))
}

func (m *Model) newBuilder(seed uint64) (b *builder, err error) {
	defer guard.RecoverThrown(&err, "reading the hyperparameters")
	return newBuilder(&m.config, m.function, m.device, seed), nil
}

// training builds both graphs of training.
func (b *builder) training(n int) (g *gradients, u *update, err error) {
	defer guard.RecoverThrown(&err, "building the graphs")
	g = b.gradients(n)
	return g, b.update(n, g), nil
}

func (m *Model) compile(g *graph.Graph, outputs []*graph.Node) (*program, error) {
	if err := context.Cause(m.setup.Context); err != nil {
		return nil, err
	}
	return compileProgram(m.device, g, outputs, func(path string) *tensor { return m.byPath[path] })
}

// layOut makes the state of all variables that training uses.
func (m *Model) layOut(variables []*variable) error {
	inOrder(variables)
	names := map[string]bool{}
	for _, v := range variables {
		if names[v.Name] || len(v.Name) > 200 {
			return fmt.Errorf("variable %q is named %q in the state: it must be unique, of at most 200 bytes", v.path,
				v.Name)
		}
		names[v.Name] = true
		memory := &memory{device: m.device, shape: v.of.Shape()}
		if !m.setup.EvaluateOnly { // else a process that only asks for the layout would hold a state
			if err := memory.hold(); err != nil {
				return fmt.Errorf("%s: %w", v.Name, err)
			}
		}
		t := &tensor{v.Tensor, v.path, v.own, v.equal, memory}
		m.state, m.byPath[v.path] = append(m.state, t), t
		if v.Summed() {
			m.summed++
		}
	}
	return nil
}

func (m *Model) check(grads [][]float32) error {
	if len(grads) != m.summed {
		return fmt.Errorf("a gradient of %d tensors, expected %d", len(grads), m.summed)
	}
	for i, t := range m.state[:m.summed] {
		if len(grads[i]) != t.Elements() {
			return fmt.Errorf("the gradient of %s has %d elements, expected %d", t.Name, len(grads[i]), t.Elements())
		}
	}
	return nil
}

func clearAll(grads [][]float32) {
	for _, g := range grads {
		clear(g)
	}
}

var errClosed = errors.New("the model is closed, or opened for evaluation only")

// Close implements evenweave.Model.
func (m *Model) Close() (err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	for _, programs := range []map[int]*program{m.of, m.predicting} {
		for _, p := range programs {
			err = errors.Join(err, p.close())
		}
	}
	for _, e := range m.metrics {
		err = errors.Join(err, e.close())
	}
	for _, p := range m.updating {
		err = errors.Join(err, p.close())
	}
	for _, t := range m.state {
		err = errors.Join(err, t.release())
	}
	m.device.Finalize()
	return err
}
