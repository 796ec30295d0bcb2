// Package gomlx trains a GoMLX model with Evenweave: a model function, a loss and an optimizer become an
// evenweave.Model, without a line about distribution.
//
//	func build(setup evenweave.Setup) (evenweave.Model, error) {
//		return gomlx.New(setup, gomlx.Config{
//			Model:     classifier, // func(scope *model.Scope, inputs []*graph.Node) *graph.Node
//			Loss:      loss.SparseCategoricalCrossEntropyLogits,
//			Optimizer: optimizer.Adam().Done(),
//			Inputs:    []shapes.Shape{shapes.Make(dtypes.Uint8, 28, 28)},
//			Labels:    []shapes.Shape{shapes.Make(dtypes.Int32, 1)},
//		})
//	}
//
// # How it computes
//
// The model's functions are built into graphs of their own, which are pure functions of their inputs:
//
//   - gradients: the state, a micro-batch and a key give the gradient of the weighted sum of losses;
//   - update: the state and the mean gradient give the next state. The model is built into it once more, so that its
//     learning rate schedules and regularizers act once a step;
//   - evaluation: the state and samples give loss and metrics.
//
// A job of one micro-batch a step computes what GoMLX's train.Trainer computes with that batch, to the last bit except
// for the rounding of gradients.
//
// # Roles of variables
//
// Roles are found from the graphs; Tensors lists them.
//
//   - trained: Trainable variables. Gradients of bfloat16 and float64 variables are rounded to float32.
//   - averaged: changed by the model in a way that depends on samples or random numbers, as batch normalisation's
//     statistics are. Each micro-batch starts from the state of the step; the mean of the changes is added.
//   - kept: all others. What the model changes in the same way for every micro-batch (a schedule's counter) is changed
//     once a step. A counter that the model advances by the size of its batch counts micro-batches, not samples.
//   - the generator's state is no part of the state: it is made of Batch.Key for each micro-batch.
//
// New refuses by name what cannot be exact: trainable variables that are no floating-point numbers, or that the model
// changes; changed integers that depend on samples; operations that the backend lacks.
//
// # Samples and weights
//
// The last micro-batch of an epoch may have fewer samples. It is computed by a program for that number of samples: so
// each loss weighs samples as it is written, and no padding gets into the statistics of batch normalisation. A
// micro-batch of n samples has weight n, or what Config.Weight says.
//
// Losses and layers that look at several samples at once (triplets, batch normalisation) see one micro-batch: its size
// is part of the model.
package gomlx
