// Package safetensors writes tensors in Hugging Face's format of that name, which Python, Rust and JavaScript read:
//
//	offset  bytes
//	0       8   N, length of the header, little-endian
//	8       N   header, JSON: {"__metadata__": {...}, "NAME": {"dtype", "shape", "data_offsets": [first, end]}, ...}
//	8+N         the tensors, row-major, little-endian, without gaps; offsets count from here
//
// The header is padded with spaces, and wider elements come first, so that each tensor begins at a multiple of its
// element's size.
package safetensors

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"evenweave"
)

// types are the format's names of element types.
var types = map[evenweave.DType]string{
	evenweave.Float64: "F64", evenweave.Float32: "F32", evenweave.Float16: "F16", evenweave.BFloat16: "BF16",
	evenweave.Int64: "I64", evenweave.Int32: "I32", evenweave.Uint64: "U64", evenweave.Uint32: "U32",
	evenweave.Uint8: "U8", evenweave.Bool: "BOOL",
}

// Tensor is a tensor with its bytes: row-major, little-endian.
type Tensor struct {
	evenweave.Tensor
	Data []byte
}

// entry describes a tensor in the header.
type entry struct {
	Type    string   `json:"dtype"`
	Shape   []int    `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// Write writes a whole file. Equal arguments give equal bytes.
func Write(w io.Writer, metadata map[string]string, tensors []Tensor) error {
	tensors = slices.Clone(tensors)
	slices.SortStableFunc(tensors, func(a, b Tensor) int { return cmp.Compare(b.Type.Size(), a.Type.Size()) })
	header, err := header(metadata, tensors)
	if err != nil {
		return fmt.Errorf("safetensors: %w", err)
	}
	if _, err := w.Write(header); err != nil {
		return err
	}
	for _, t := range tensors {
		if _, err := w.Write(t.Data); err != nil {
			return err
		}
	}
	return nil
}

// header is all before the first tensor.
func header(metadata map[string]string, tensors []Tensor) ([]byte, error) {
	first, err := json.Marshal(metadata)
	if err != nil {
		return nil, err
	}
	text := bytes.NewBufferString(`{"__metadata__":`)
	text.Write(first)
	at := int64(0)
	for _, t := range tensors {
		kind, known := types[t.Type]
		if !known || int64(len(t.Data)) != t.Bytes() {
			return nil, fmt.Errorf("tensor %q of type %s has %d bytes, expected %d", t.Name, t.Type, len(t.Data),
				t.Bytes())
		}
		name, err := json.Marshal(t.Name)
		if err != nil {
			return nil, err
		}
		end := at + t.Bytes()
		described, err := json.Marshal(entry{kind, append([]int{}, t.Shape...), [2]int64{at, end}})
		if err != nil {
			return nil, err
		}
		fmt.Fprintf(text, ",%s:%s", name, described)
		at = end
	}
	text.WriteByte('}')
	for text.Len()%8 != 0 {
		text.WriteByte(' ')
	}
	return append(binary.LittleEndian.AppendUint64(nil, uint64(text.Len())), text.Bytes()...), nil
}
