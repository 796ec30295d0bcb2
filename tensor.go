package evenweave

import (
	"fmt"
	"path"
	"strings"
)

// Tensor describes one part of a model's state.
type Tensor struct {
	// Name is unique in the model and shown to people: "conv1/kernel". Printable ASCII without spaces, at most 200
	// bytes.
	Name  string
	Type  DType
	Shape []int // each at least 1; empty for a scalar
	Role  Role
}

// Role says what the trainer does with a tensor beside keeping it.
type Role uint8

const (
	// Kept tensors belong to the optimizer or the schedule: only Update changes them.
	Kept Role = iota
	// Trained tensors are the parameters: they get a gradient.
	Trained
	// Averaged tensors are changed by the forward pass (running averages): the mean of the micro-batches' changes is
	// added by Update.
	Averaged
)

// String returns "kept", "trained" or "averaged".
func (r Role) String() string {
	if names := []string{"kept", "trained", "averaged"}; int(r) < len(names) {
		return names[r]
	}
	return fmt.Sprintf("Role(%d)", uint8(r))
}

// DType is the type of a tensor's elements.
type DType string

// The types that a state may have.
const (
	Float32  DType = "float32"
	Float64  DType = "float64"
	BFloat16 DType = "bfloat16"
	Float16  DType = "float16"
	Int32    DType = "int32"
	Int64    DType = "int64"
	Uint32   DType = "uint32"
	Uint64   DType = "uint64"
	Uint8    DType = "uint8"
	Bool     DType = "bool" // one byte an element, 0 or 1
)

// Size is the number of bytes of an element; 0 for an unknown type.
func (d DType) Size() int {
	switch d {
	case Float64, Int64, Uint64:
		return 8
	case Float32, Int32, Uint32:
		return 4
	case BFloat16, Float16:
		return 2
	case Uint8, Bool:
		return 1
	}
	return 0
}

// Elements is the product of the shape. The caller has checked that it does not overflow.
func (t Tensor) Elements() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// Bytes is the length of the tensor's encoding.
func (t Tensor) Bytes() int64 { return int64(t.Elements()) * int64(t.Type.Size()) }

// Summed says whether Gradients fills a slice for the tensor.
func (t Tensor) Summed() bool { return t.Role == Trained || t.Role == Averaged }

// MatchNames says of each name whether one of the patterns matches it. The patterns are those of path.Match, separated
// by commas: "conv1/*,dense/bias". A pattern that matches no name is an error.
func MatchNames(patterns string, names []string) (matched []bool, err error) {
	matched = make([]bool, len(names))
	for pattern := range strings.SplitSeq(patterns, ",") {
		if pattern = strings.TrimSpace(pattern); pattern == "" {
			continue
		}
		some := false
		for i, name := range names {
			matches, err := path.Match(pattern, name)
			if err != nil {
				return nil, fmt.Errorf("%q: %w", pattern, err)
			}
			matched[i], some = matched[i] || matches, some || matches
		}
		if !some {
			return nil, fmt.Errorf("%q matches no name", pattern)
		}
	}
	return matched, nil
}
