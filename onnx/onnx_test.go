package onnx

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"
)

// fields lists what a message holds: texts and messages by field, numbers by field.
func fields(t *testing.T, b []byte) (within map[protowire.Number][][]byte, numbers map[protowire.Number][]uint64) {
	t.Helper()
	within, numbers = map[protowire.Number][][]byte{}, map[protowire.Number][]uint64{}
	for len(b) > 0 {
		field, kind, n := protowire.ConsumeTag(b)
		if n < 0 {
			t.Fatal(protowire.ParseError(n))
		}
		b = b[n:]
		switch kind {
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			within[field], b = append(within[field], v), b[n:]
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(b)
			numbers[field], b = append(numbers[field], v), b[n:]
		default:
			t.Fatalf("field %d has wire type %d", field, kind)
		}
	}
	return within, numbers
}

// The fields are where onnx.proto has them; deploy/interoptest runs a whole model with ONNX Runtime.
func TestEncode(t *testing.T) {
	m := Model{Producer: "p", Metadata: map[string]string{"b": "2", "a": "1"}, Graph: Graph{
		Name:      "g",
		Inputs:    []Value{{"x", Uint8, []any{"batch", 3}}},
		Outputs:   []Value{{"y", Float, []any{"batch"}}},
		Constants: []Tensor{{"w", []int{2, 1}, []float32{1.5, -2}}},
		Nodes: []Node{{"MaxPool", []string{"x", "w"}, []string{"y"},
			map[string]any{"strides": []int{2, 2}, "to": 1}}},
	}}
	encoded := m.Encode()
	if !bytes.Equal(encoded, m.Encode()) {
		t.Error("equal models have other bytes")
	}
	model, versions := fields(t, encoded)
	if versions[1][0] != irVersion || string(model[2][0]) != "p" || len(model[8]) != 1 {
		t.Errorf("model: %v %q", versions, model)
	}
	var metadata string
	for _, entry := range model[14] {
		texts, _ := fields(t, entry)
		metadata += fmt.Sprintf("%s=%s ", texts[1][0], texts[2][0])
	}
	if metadata != "a=1 b=2 " {
		t.Errorf("metadata %q", metadata)
	}
	graph, _ := fields(t, model[7][0])
	node, _ := fields(t, graph[1][0])
	if string(graph[2][0]) != "g" || fmt.Sprintf("%s", node[1]) != "[x w]" || string(node[2][0]) != "y" ||
		string(node[4][0]) != "MaxPool" || len(node[5]) != 2 {
		t.Errorf("graph %q, node %q", graph, node)
	}
	strides, numbers := fields(t, node[5][0])
	if string(strides[1][0]) != "strides" || fmt.Sprint(numbers[8], numbers[20]) != "[2 2] [7]" {
		t.Errorf("attribute %q %v", strides, numbers)
	}
	tensor, numbers := fields(t, graph[5][0])
	if fmt.Sprint(numbers[1], numbers[2]) != "[2 1] [1]" || string(tensor[8][0]) != "w" ||
		math.Float32frombits(binary.LittleEndian.Uint32(tensor[9][0][4:])) != -2 {
		t.Errorf("tensor %q %v", tensor, numbers)
	}
	input, _ := fields(t, graph[11][0])
	kind, _ := fields(t, input[2][0])
	of, numbers := fields(t, kind[1][0])
	shape, _ := fields(t, of[2][0])
	if string(input[1][0]) != "x" || numbers[1][0] != uint64(Uint8) || len(shape[1]) != 2 || len(graph[12]) != 1 {
		t.Errorf("input %q %v %q", input, numbers, shape)
	}
}
