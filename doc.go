// Package evenweave is what a training program is made of: a Task names a model, its data and its options, and cli.Main
// makes a whole command line of it that trains on any number of workers with bit-identical results.
//
//	func main() { cli.Main(&evenweave.Task{Name: "flowers", Options: &options, Data: open, Model: build}) }
//
// A program implements two interfaces, Data and Model. Everything else is derived from them: parameter names, hashes,
// the first checkpoint, the golden probe that finds machines with other bits, and progress.
//
// # What must hold
//
// The worker count changes nothing but the speed if, and only if,
//
//   - Data.Load is a pure function of the batch: the same sample has the same content in every process;
//   - Model.Gradients is a pure function of the batch's content, its Key and the state: Key is its only randomness;
//   - Model.Update is a pure function of the mean gradient, the step and the state;
//   - Model.Init is a pure function of the seed.
//
// `PROGRAM verify` tests this and names the first tensor that differs.
//
// # Files
//
//	task.go      Task, Sets, Setup: what a program trains
//	options.go   what an options struct may hold
//	data.go      Data, Batch: samples and how they are loaded
//	model.go     Model, Sums: gradients, update and state
//	tensor.go    Tensor: name, type, shape and role of a part of the state
//	memory.go    Memory: a state in memory, for models in plain Go; floats.go: one tensor of it
//	evaluate.go  Evaluator, Figure, Means: how good a model is
//	details.go   DetailedEvaluator, Details: what people look at after an evaluation
//	export.go    Exporter: a model that can write itself for other programs
//	show.go      Classed, Pictured, Located: what people are shown of data
//	describe.go  Describer, Scheduler, Layer: what people are shown of a model
//	command.go   Command: commands of a program's own
//	random.go    Key, Generator: random numbers that are a pure function of their purpose
//
// The package imports nothing of this project.
package evenweave
