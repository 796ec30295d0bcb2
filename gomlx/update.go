package gomlx

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"unsafe"

	"evenweave/gomlx/backend"
	"evenweave/internal/guard"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// A large update is cut into programs that run at the same time. Into how many depends on the state alone: all members
// run the same programs, however many processors each has.
const (
	partBytes = 32 << 20 // of what an update changes: memory that a processor needs for a while beside the state
	mostParts = 8
)

// part is a program that computes some of what an update changes.
type part struct {
	*program
	changed []string // paths, in the order of the program's results
}

// partsOf is into how many programs to cut an update: on a GPU all of it computes one, and GoMLX's backend in Go takes
// no program that has no use for a parameter.
func (m *Model) partsOf(u *update) int {
	bytes := int64(0)
	for _, out := range u.outputs {
		bytes += out.Shape().ByteSize()
	}
	if !m.device.HasSharedBuffers() || m.device.Name() != "xla" {
		return 1
	}
	return int(min(max(bytes/partBytes, 1), mostParts))
}

// compileUpdate compiles an update as at most n programs. A graph is compiled once, so the others are built again.
func (m *Model) compileUpdate(u *update, of *gradients, n int) (err error) {
	for i, changed := range u.split(n) {
		if i > 0 {
			if u, err = m.builder.again(m.setup.MicroBatch, of); err != nil {
				return err
			}
		}
		var outputs []*graph.Node
		for _, path := range changed {
			at := slices.Index(u.changed, path)
			if at < 0 {
				return fmt.Errorf("the second graph of an update does not change %s, which the first does", path)
			}
			outputs = append(outputs, u.outputs[at])
		}
		p, err := m.compile(u.Graph, outputs)
		if err != nil {
			return err
		}
		m.updating = append(m.updating, part{p, changed})
	}
	return nil
}

func (b *builder) again(n int, of *gradients) (u *update, err error) {
	defer guard.RecoverThrown(&err, "building the update")
	return b.update(n, of), nil
}

// group are changes that are computed from the same tensors, or replace them.
type group struct {
	changed []string
	bytes   int64
	reads   map[*graph.Node]bool
}

// split cuts what an update changes into at most n parts of about equal size. What is computed from the same tensors or
// replaces them stays together: a weight and its moments, or all weights if the optimizer takes a norm over all
// gradients.
func (u *update) split(n int) (parts [][]string) {
	var groups []*group
	for i, out := range u.outputs {
		g := &group{[]string{u.changed[i]}, out.Shape().ByteSize(), map[*graph.Node]bool{}}
		seen := map[*graph.Node]bool{}
		g.read(out, seen)
		if old := u.GetParameterByName(u.changed[i]); old != nil { // another part may read what it replaces
			g.read(old, seen)
		}
		groups = slices.DeleteFunc(groups, func(other *group) bool {
			for r := range other.reads {
				if g.reads[r] {
					g.changed, g.bytes = append(other.changed, g.changed...), g.bytes+other.bytes
					maps.Copy(g.reads, other.reads)
					return true
				}
			}
			return false
		})
		groups = append(groups, g)
	}
	slices.SortStableFunc(groups, func(a, b *group) int { return cmp.Compare(b.bytes, a.bytes) })
	parts, sizes := make([][]string, min(n, len(groups))), make([]int64, min(n, len(groups)))
	for _, g := range groups { // the largest first, each to the smallest part
		i := slices.Index(sizes, slices.Min(sizes))
		parts[i], sizes[i] = append(parts[i], g.changed...), sizes[i]+g.bytes
	}
	return parts
}

// read collects the tensors that a node is computed from. Scalars, such as the count of steps, are no reason to compute
// two changes together.
func (g *group) read(n *graph.Node, seen map[*graph.Node]bool) {
	if seen[n] {
		return
	}
	seen[n] = true
	if n.Type() == graph.NodeTypeParameter && n.Shape().Size() > 1 {
		g.reads[n] = true
	}
	for _, in := range n.Inputs() {
		g.read(in, seen)
	}
}

// Update implements evenweave.Model.
func (m *Model) Update(mean [][]float32, _ int64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || len(m.updating) == 0 {
		return errClosed
	}
	if err := m.check(mean); err != nil {
		return err
	}
	all := m.updating[0] // the arguments are those of each part
	a, err := all.take()
	if err != nil {
		return err
	}
	defer all.put(a)
	for i, t := range m.state[:m.summed] {
		err = errors.Join(err, a.set(meanName(t.path), bytesOf(mean[i])))
	}
	if err != nil {
		return err
	}
	// The next parts run when what these give has replaced what they read: no second state is in memory. Scalars wait
	// for the end, because parts read those that others change.
	var scalars []next
	for parts := range slices.Chunk(m.updating, runtime.GOMAXPROCS(0)) {
		results, err := m.runParts(parts, a)
		if err != nil {
			return errors.Join(err, discard(scalars))
		}
		var large []next
		for _, r := range results {
			if r.of.shape.Size() == 1 {
				scalars = append(scalars, r)
			} else {
				large = append(large, r)
			}
		}
		if err := m.take(large); err != nil {
			return errors.Join(err, discard(scalars))
		}
	}
	if err := m.take(scalars); err != nil {
		return err
	}
	if m.updates++; m.updates == m.returns {
		m.returns *= 4
		backend.ReturnFreedMemory()
	}
	return nil
}

// next is the next value of a tensor.
type next struct {
	compute.Buffer
	of *tensor
}

// take makes results the state.
func (m *Model) take(results []next) (err error) {
	inUse := map[*byte]bool{}
	for _, t := range m.state {
		inUse[unsafe.SliceData(t.bytes)] = true
	}
	for _, r := range results {
		err = errors.Join(err, r.of.take(r.Buffer, inUse))
	}
	return err
}

// runParts runs parts on the present state, all at the same time.
func (m *Model) runParts(parts []part, a arguments) (all []next, err error) {
	results, errs := make([][]compute.Buffer, len(parts)), make([]error, len(parts))
	var running sync.WaitGroup
	for i, p := range parts {
		running.Go(func() { results[i], errs[i] = p.run(a) })
	}
	running.Wait()
	for i, p := range parts {
		for j, buffer := range results[i] {
			all = append(all, next{buffer, m.byPath[p.changed[j]]})
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, errors.Join(err, discard(all))
	}
	return all, nil
}
