package cnn

import (
	"fmt"
	"io"
	"slices"

	"evenweave/onnx"
)

// Exports implements evenweave.Exporter.
func (m *Model) Exports() []string { return []string{"onnx"} }

// Export implements evenweave.Exporter: images [batch, 1, 28, 28] of bytes in, logits [batch, 10] out, as Logits
// computes them except for the order of sums.
func (m *Model) Export(w io.Writer, format string, provenance map[string]string) error {
	if format != "onnx" {
		return fmt.Errorf("format %q: this model has onnx", format)
	}
	_, err := w.Write(onnx.Model{Producer: "evenweave", Metadata: provenance, Graph: m.graph()}.Encode())
	return err
}

// graph is the forward pass in ONNX's order of axes: batch, channel, height, width.
func (m *Model) graph() onnx.Graph {
	m.mu.RLock()
	defer m.mu.RUnlock()
	constants := []onnx.Tensor{{Name: "scale", Values: []float32{1.0 / 255}}}
	for _, t := range m.all {
		values := m.state[t.Offset : t.Offset+t.Size()]
		c := onnx.Tensor{Name: t.Name, Shape: t.Shape, Values: values}
		switch {
		case t.Name == "dense/kernel": // its rows are those of a flattened image of 12x12x64: here it is 64x12x12
			c.Values = transposed(values, features/filters2, filters2, m.classes)
		case len(t.Shape) == 4: // [3, 3, in, out]
			in, out := t.Shape[2], t.Shape[3]
			c.Shape = []int{out, in, 3, 3}
			c.Values = transposed(transposed(values, taps, in*out, 1), in, out, taps)
		default:
			c.Values = slices.Clone(values)
		}
		constants = append(constants, c)
	}
	step := func(op, output string, attributes map[string]any, inputs ...string) onnx.Node {
		return onnx.Node{Op: op, Inputs: inputs, Outputs: []string{output}, Attributes: attributes}
	}
	return onnx.Graph{
		Name:      "cnn",
		Inputs:    []onnx.Value{{Name: "images", Type: onnx.Uint8, Shape: []any{"batch", 1, side, side}}},
		Outputs:   []onnx.Value{{Name: "logits", Type: onnx.Float, Shape: []any{"batch", m.classes}}},
		Constants: constants,
		Nodes: []onnx.Node{
			step("Cast", "bytes", map[string]any{"to": int(onnx.Float)}, "images"),
			step("Mul", "pixels", nil, "bytes", "scale"),
			step("Conv", "conv1", nil, "pixels", "conv1/kernel", "conv1/bias"),
			step("Relu", "relu1", nil, "conv1"),
			step("Conv", "conv2", nil, "relu1", "conv2/kernel", "conv2/bias"),
			step("Relu", "relu2", nil, "conv2"),
			step("MaxPool", "pool", map[string]any{"kernel_shape": []int{2, 2}, "strides": []int{2, 2}}, "relu2"),
			step("Flatten", "features", nil, "pool"),
			step("Gemm", "logits", nil, "features", "dense/kernel", "dense/bias"),
		},
	}
}

// transposed swaps the first two axes of values of shape [a, b, c].
func transposed(values []float32, a, b, c int) []float32 {
	swapped := make([]float32, 0, len(values))
	for j := range b {
		for i := range a {
			swapped = append(swapped, values[(i*b+j)*c:][:c]...)
		}
	}
	return swapped
}
