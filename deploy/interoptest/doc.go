// Package interoptest holds the tests that read what Evenweave writes for other programs with those programs: Python's
// safetensors, TensorBoard, ONNX Runtime and MLflow. `make test-interop` installs them and runs the tests.
package interoptest
