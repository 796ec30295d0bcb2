// Package onnx encodes a computation as an ONNX model (https://onnx.ai). A task's model that implements
// evenweave.Exporter lists its operators and weights as a Graph, and Encode gives the bytes of the file. The package
// writes the part of onnx.proto, with its field numbers, that a network for inference needs.
package onnx

import (
	"encoding/binary"
	"maps"
	"math"
	"slices"

	"google.golang.org/protobuf/encoding/protowire"
)

// Versions of the format and of the operators' definitions.
const (
	irVersion = 8
	opset     = 17
)

// Type is that of a tensor's elements.
type Type int

// Types, by ONNX's numbers.
const (
	Float Type = 1
	Uint8 Type = 2
)

// Model is a graph with texts that say where it comes from.
type Model struct {
	Producer string
	Metadata map[string]string
	Graph    Graph
}

// Graph computes Outputs from Inputs and Constants by Nodes, each after those whose outputs it uses.
type Graph struct {
	Name            string
	Inputs, Outputs []Value
	Constants       []Tensor
	Nodes           []Node
}

// Value names a tensor that is given or computed. A dimension is a number, or a name for any number.
type Value struct {
	Name  string
	Type  Type
	Shape []any // int or string
}

// Tensor is a constant of 32-bit floats.
type Tensor struct {
	Name   string
	Shape  []int
	Values []float32
}

// Node applies an operator.
type Node struct {
	Op              string
	Inputs, Outputs []string
	Attributes      map[string]any // int, or []int
}

// Encode returns the bytes of a .onnx file. Equal models have equal bytes.
func (m Model) Encode() []byte {
	var b message
	b.number(1, irVersion)
	b.text(2, m.Producer)
	b.within(7, m.Graph.encode())
	b.within(8, func() (set message) {
		set.text(1, "")
		set.number(2, opset)
		return set
	}())
	for _, key := range slices.Sorted(maps.Keys(m.Metadata)) {
		var entry message
		entry.text(1, key)
		entry.text(2, m.Metadata[key])
		b.within(14, entry)
	}
	return b
}

func (g Graph) encode() (b message) {
	for _, n := range g.Nodes {
		b.within(1, n.encode())
	}
	b.text(2, g.Name)
	for _, t := range g.Constants {
		b.within(5, t.encode())
	}
	for _, v := range g.Inputs {
		b.within(11, v.encode())
	}
	for _, v := range g.Outputs {
		b.within(12, v.encode())
	}
	return b
}

func (n Node) encode() (b message) {
	for _, name := range n.Inputs {
		b.text(1, name)
	}
	for _, name := range n.Outputs {
		b.text(2, name)
	}
	b.text(3, n.Outputs[0])
	b.text(4, n.Op)
	for _, name := range slices.Sorted(maps.Keys(n.Attributes)) {
		b.within(5, attribute(name, n.Attributes[name]))
	}
	return b
}

func attribute(name string, value any) (b message) {
	const oneInt, manyInts = 2, 7
	b.text(1, name)
	switch v := value.(type) {
	case int:
		b.number(3, int64(v))
		b.number(20, oneInt)
	case []int:
		for _, i := range v {
			b.number(8, int64(i))
		}
		b.number(20, manyInts)
	}
	return b
}

func (t Tensor) encode() (b message) {
	for _, d := range t.Shape {
		b.number(1, int64(d))
	}
	b.number(2, int64(Float))
	b.text(8, t.Name)
	raw := make([]byte, 0, 4*len(t.Values))
	for _, v := range t.Values {
		raw = binary.LittleEndian.AppendUint32(raw, math.Float32bits(v))
	}
	b.within(9, raw)
	return b
}

func (v Value) encode() (b message) {
	var shape, tensor, kind message
	for _, d := range v.Shape {
		var dimension message
		switch d := d.(type) {
		case int:
			dimension.number(1, int64(d))
		case string:
			dimension.text(2, d)
		}
		shape.within(1, dimension)
	}
	tensor.number(1, int64(v.Type))
	tensor.within(2, shape)
	kind.within(1, tensor)
	b.text(1, v.Name)
	b.within(2, kind)
	return b
}

// message is an encoded protocol buffer.
type message []byte

func (m *message) number(field protowire.Number, v int64) {
	*m = protowire.AppendVarint(protowire.AppendTag(*m, field, protowire.VarintType), uint64(v))
}

func (m *message) text(field protowire.Number, s string) { m.within(field, []byte(s)) }

func (m *message) within(field protowire.Number, b []byte) {
	*m = protowire.AppendBytes(protowire.AppendTag(*m, field, protowire.BytesType), b)
}
