// Package dataset holds data for tasks: each set is an evenweave.Data whose Load fills Batch.Content with a *Content.
//
//	content.go   Content, Flat: what a model gets for a micro-batch
//	source.go    Source, New: data from whatever can read one sample by its index
//	memory.go    InMemory: tensors in memory
//	idx.go       IDX: sets in the form of MNIST
//	images.go    Images: folders of pictures by class
//	csv.go       CSV: tables of numbers and words
//	augment.go   Augmented: changes by seed, epoch and sample
//	text.go      Text: windows of text or tokens from files larger than memory
//	files.go     Files: files of any size, checked as they are read; manifest.go: the sums that they are checked by
//	show.go      what data show to people: classes, pictures, files
//	parts.go     Split, Range, Shuffle: parts of a set, by index alone
//	prefetch.go  Prefetched: loads what the trainer announces while the step before computes
//
// Everything is a pure function of an index: which process loads a sample, in which batch and in which order, changes
// no byte of it.
package dataset
