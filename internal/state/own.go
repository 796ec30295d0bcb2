package state

import (
	"encoding/binary"
	"fmt"
	"strings"

	"evenweave"
	"evenweave/internal/exact"
)

// Exponents names the tool's own tensor: an int32 for each block of the gradient (see exact.Blocks). Zeros before the
// first step of a job, whatever its weights are.
const Exponents = Reserved + "exponents"

// OfJob lays out the state of a job: the tensors of its model, then the tool's own.
func OfJob(model []evenweave.Tensor) (*Layout, error) {
	for i, t := range model {
		if strings.HasPrefix(t.Name, Reserved) {
			return nil, fmt.Errorf("tensor %d, %q: names that begin with %q belong to the tool's own tensors", i,
				clean(t.Name), Reserved)
		}
	}
	l, err := NewLayout(model)
	if err != nil {
		return nil, err
	}
	own := evenweave.Tensor{Name: Exponents, Type: evenweave.Int32, Shape: []int{l.Blocks().Count()},
		Role: evenweave.Kept}
	return NewLayout(append(l.Tensors, own))
}

// OfModel lays out the tensors that are not the tool's own.
func (l *Layout) OfModel() (*Layout, error) { return NewLayout(l.Tensors[:l.own()]) }

// own is the index of the first of the tool's own tensors, or the number of tensors if there are none.
func (l *Layout) own() int {
	n := len(l.Tensors)
	for n > 0 && strings.HasPrefix(l.Tensors[n-1].Name, Reserved) {
		n--
	}
	return n
}

// Blocks cuts the gradient into blocks, none across tensors.
func (l *Layout) Blocks() *exact.Blocks {
	var elements []int
	for _, t := range l.Tensors {
		if t.Summed() {
			elements = append(elements, t.Elements())
		}
	}
	return exact.NewBlocks(elements)
}

// ReadWriter holds a state's tensors.
type ReadWriter interface {
	Reader
	Writer
}

// Live is a job's state where it lies: the model's tensors in the model, the tool's own in memory.
type Live struct {
	Exponents []int32

	model ReadWriter
	own   int
}

// Live joins a model with the tool's own tensors, which are zeros. The layout is that of OfJob, or of the model alone.
func (l *Layout) Live(model ReadWriter) *Live {
	live := &Live{model: model, own: l.own()}
	if live.own < len(l.Tensors) {
		live.Exponents = make([]int32, l.Tensors[live.own].Elements())
	}
	return live
}

// Read implements Reader.
func (v *Live) Read(tensor int, offset int64, p []byte) error {
	if tensor < v.own {
		return v.model.Read(tensor, offset, p)
	}
	if err := v.check(tensor, offset, p); err != nil {
		return err
	}
	for i := range p {
		at := offset + int64(i)
		p[i] = byte(v.Exponents[at/4] >> (8 * (at % 4)))
	}
	return nil
}

// Write implements Writer.
func (v *Live) Write(tensor int, offset int64, p []byte) error {
	if tensor < v.own {
		return v.model.Write(tensor, offset, p)
	}
	if err := v.check(tensor, offset, p); err != nil {
		return err
	}
	var word [4]byte
	for i, b := range p {
		at := offset + int64(i)
		binary.LittleEndian.PutUint32(word[:], uint32(v.Exponents[at/4]))
		word[at%4] = b
		v.Exponents[at/4] = int32(binary.LittleEndian.Uint32(word[:]))
	}
	return nil
}

func (v *Live) check(tensor int, offset int64, p []byte) error {
	if size := 4 * int64(len(v.Exponents)); tensor != v.own || offset < 0 || offset > size ||
		int64(len(p)) > size-offset {
		return fmt.Errorf("bytes %d to %d of tensor %d, the tool's own: out of range", offset, offset+int64(len(p)),
			tensor)
	}
	return nil
}
