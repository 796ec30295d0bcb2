package state

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"evenweave"
)

// Reserved begins the names of the tool's own tensors, which follow the model's and have role Kept (see OfJob).
const Reserved = "evenweave/"

const (
	alignment   = 8
	maxTensors  = 1 << 16
	maxName     = 200
	maxImage    = 1 << 46 // bytes, so that no sum of sizes overflows
	maxElements = math.MaxInt32
)

// Large is the size in bytes of a state from which on a member gets ready to join before a world uses it: the others
// would wait longer than a short step takes.
const Large = 32 << 20

// Layout says where each tensor of a state lies in its image: one after the other, each from a multiple of 8 bytes on,
// zeros between them. It is not changed once it is made.
type Layout struct {
	Tensors []evenweave.Tensor
	Offsets []int64 // of each tensor's first byte
	Size    int64   // bytes of the image
	names   map[string]int
}

// NewLayout lays out a model's tensors, or says what is wrong with them.
func NewLayout(tensors []evenweave.Tensor) (*Layout, error) {
	if len(tensors) == 0 || len(tensors) > maxTensors {
		return nil, fmt.Errorf("%d tensors: expected 1 to %d", len(tensors), maxTensors)
	}
	l := &Layout{Tensors: slices.Clone(tensors), Offsets: make([]int64, len(tensors)),
		names: make(map[string]int, len(tensors))}
	for i, t := range tensors {
		if err := l.check(i, t); err != nil {
			return nil, fmt.Errorf("tensor %d, %q: %w", i, clean(t.Name), err)
		}
		l.names[t.Name] = i
		l.Offsets[i] = l.Size
		l.Size += (t.Bytes() + alignment - 1) / alignment * alignment
		if l.Size > maxImage {
			return nil, fmt.Errorf("the tensors up to %q take %d bytes: at most %d", t.Name, l.Size, int64(maxImage))
		}
	}
	if tensors[0].Role != evenweave.Trained {
		return nil, fmt.Errorf("the first tensor, %q, has role %v: those of role trained come first, and there is "+
			"at least one", tensors[0].Name, tensors[0].Role)
	}
	return l, nil
}

// check says what is wrong with a tensor that follows those in l.
func (l *Layout) check(i int, t evenweave.Tensor) error {
	if t.Name == "" || len(t.Name) > maxName ||
		strings.ContainsFunc(t.Name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return fmt.Errorf("a name is 1 to %d characters of printable ASCII without spaces", maxName)
	}
	if _, taken := l.names[t.Name]; taken {
		return fmt.Errorf("an earlier tensor has this name")
	}
	if t.Type.Size() == 0 {
		return fmt.Errorf("unknown type %q", clean(string(t.Type)))
	}
	if t.Role > evenweave.Averaged {
		return fmt.Errorf("unknown role %v", t.Role)
	}
	if t.Role == evenweave.Trained && i > 0 && l.Tensors[i-1].Role != evenweave.Trained {
		return fmt.Errorf("it is trained and comes after one that is not: those of role trained come first")
	}
	if strings.HasPrefix(t.Name, Reserved) && t.Role != evenweave.Kept {
		return fmt.Errorf("names that begin with %q belong to the tool's own tensors, of role kept", Reserved)
	}
	n := 1
	for _, d := range t.Shape {
		if d < 1 || d > maxElements/n {
			return fmt.Errorf("shape %v: dimensions are at least 1, and their product at most %d", t.Shape, maxElements)
		}
		n *= d
	}
	return nil
}

// Index returns the place of the tensor with this name, or -1.
func (l *Layout) Index(name string) int {
	if i, ok := l.names[name]; ok {
		return i
	}
	return -1
}

// Summed counts the elements of a gradient: those of all tensors for which Gradients fills a slice.
func (l *Layout) Summed() int {
	n := 0
	for _, t := range l.Tensors {
		if t.Summed() {
			n += t.Elements()
		}
	}
	return n
}

// Split cuts a flat gradient of Summed elements into the slices that Gradients fills, in the order of the tensors. Each
// slice's capacity reaches to the end of the flat one, so that a model may find that they are one piece.
func (l *Layout) Split(flat []float32) [][]float32 {
	var parts [][]float32
	for _, t := range l.Tensors {
		if t.Summed() {
			n := t.Elements()
			parts, flat = append(parts, flat[:n]), flat[n:]
		}
	}
	return parts
}

// Reader gives bytes of a state's tensors: a model, or a State.
type Reader interface {
	Read(tensor int, offset int64, p []byte) error
}

// Writer takes bytes of a state's tensors.
type Writer interface {
	Write(tensor int, offset int64, p []byte) error
}

// ReadImage fills p with the bytes of the image from an offset on.
func (l *Layout) ReadImage(from Reader, offset int64, p []byte) error {
	i, found := slices.BinarySearch(l.Offsets, offset)
	if !found {
		i--
	}
	for ; len(p) > 0; i++ {
		within := offset - l.Offsets[i]
		size := l.Tensors[i].Bytes()
		if n := min(size-within, int64(len(p))); n > 0 {
			if err := from.Read(i, within, p[:n]); err != nil {
				return fmt.Errorf("reading tensor %s: %w", l.Tensors[i].Name, err)
			}
			p, offset = p[n:], offset+n
		}
		gap := min(l.end(i)-offset, int64(len(p)))
		clear(p[:gap])
		p, offset = p[gap:], offset+gap
	}
	return nil
}

// WriteImage writes a whole image, tensor by tensor.
func (l *Layout) WriteImage(to Writer, image []byte) error {
	for i, t := range l.Tensors {
		if err := to.Write(i, 0, image[l.Offsets[i]:l.Offsets[i]+t.Bytes()]); err != nil {
			return fmt.Errorf("writing tensor %s: %w", t.Name, err)
		}
	}
	return nil
}

// end is where the next tensor begins.
func (l *Layout) end(i int) int64 {
	if i+1 < len(l.Offsets) {
		return l.Offsets[i+1]
	}
	return l.Size
}

// At names what lies at an offset of the image, for a person.
func (l *Layout) At(offset int64) string {
	i, found := slices.BinarySearch(l.Offsets, offset)
	if !found {
		i--
	}
	if i < 0 || offset >= l.Size {
		return "no tensor"
	}
	return l.Tensors[i].Name
}

// Equal says whether both lay out the same tensors.
func (l *Layout) Equal(other *Layout) bool {
	return slices.EqualFunc(l.Tensors, other.Tensors, func(a, b evenweave.Tensor) bool {
		return a.Name == b.Name && a.Type == b.Type && a.Role == b.Role && slices.Equal(a.Shape, b.Shape)
	})
}

// Other says which tensor of a model is the first that a checkpoint with the layout l does not hold as it is, for an
// error; l and model are not Equal.
func (l *Layout) Other(model *Layout) string {
	for i, t := range model.Tensors {
		at := l.Index(t.Name)
		if at < 0 {
			return fmt.Sprintf("it has no tensor %s, which the model has: %s%v", t.Name, t.Type, t.Shape)
		}
		if h := l.Tensors[at]; h.Type != t.Type || h.Role != t.Role || !slices.Equal(h.Shape, t.Shape) {
			return fmt.Sprintf("its tensor %s is %s%v (%s), the model's is %s%v (%s)", t.Name, h.Type, h.Shape, h.Role,
				t.Type, t.Shape, t.Role)
		}
		if at != i {
			return fmt.Sprintf("its tensor %d is %s, the model's is %s", i, l.Tensors[min(i, len(l.Tensors)-1)].Name,
				t.Name)
		}
	}
	return fmt.Sprintf("it has %d tensors, the model %d", len(l.Tensors), len(model.Tensors))
}

// clean is a text that may come from anywhere, quoted by the caller and cut.
func clean(s string) string { return s[:min(len(s), maxName)] }
