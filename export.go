package evenweave

import "io"

// Exporter may be implemented by a Model that can write itself in a format of other programs, as `PROGRAM export
// --format NAME` does. Plain tensors, without what is computed from them, can be exported of every model.
type Exporter interface {
	// Exports names the formats, which are the ends of the files' names, too: "onnx" (package onnx writes it).
	Exports() []string
	// Export writes the model with its present state, for inference. provenance says where it comes from (task, step,
	// weights_sha256): what the format can hold of it should be in the file.
	Export(w io.Writer, format string, provenance map[string]string) error
}
