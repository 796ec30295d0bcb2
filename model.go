package evenweave

// Model computes gradients and updates of a state that it holds, in memory or on a device.
//
// Gradients, Read and an Evaluator's Evaluate may be called by several goroutines at once. Init, Write, Update and
// Close have the model to themselves: nothing else is called meanwhile.
type Model interface {
	// Tensors lays out the state: everything that must be kept to go on (parameters, what the optimizer keeps, running
	// averages), tensors of role Trained first. The same in every process of a job; the caller does not change it.
	Tensors() []Tensor
	// Init sets the state of step 0: a pure function of the seed. Called once in the life of a job, in one process.
	Init(seed uint64) error
	// Read copies len(p) bytes of a tensor from a byte offset on: elements in row-major order, each little-endian.
	Read(tensor int, offset int64, p []byte) error
	// Write replaces bytes of a tensor, as Read orders them. After an error the state is undefined until all of it is
	// written again.
	Write(tensor int, offset int64, p []byte) error
	// Gradients computes, for one micro-batch, the gradient of the weighted sum (not the mean) of its samples' losses
	// with respect to each tensor of role Trained, and for each of role Averaged the weighted sum of its change. grads
	// has a slice for each of those tensors, in the order of Tensors, with as many elements as the tensor; all are
	// overwritten. The result depends on nothing but b.Content, b.Key and the state.
	Gradients(b *Batch, grads [][]float32) (Sums, error)
	// Update applies one optimizer step to the state. mean is laid out as grads: the sum over the global batch divided
	// by its weight. It may be changed. step counts updates, from 0. After an error the state is as before, or else
	// the member finds by its fingerprint that it is not, and takes its peers' or the checkpoint's.
	Update(mean [][]float32, step int64) error
	// Close releases what the model holds; it is not used afterwards.
	Close() error
}

// Sums is what one micro-batch adds to a step.
type Sums struct {
	// Loss is the weighted sum of the samples' losses; it must be finite.
	Loss float64
	// Weight is by what sums are divided to become means: the number of samples that are not padding, or of tokens that
	// count.
	Weight int64
	// Metrics are sums in the order of Task.Metrics.
	Metrics []int64
}

// Checker may be implemented by a Model that can find mistakes before anything is computed: a job that could not go on
// does not begin.
type Checker interface {
	// CheckBatch says whether the model can take what data have loaded into b.Content.
	CheckBatch(b *Batch) error
	// CheckEvaluation builds what Evaluate computes, and computes nothing.
	CheckEvaluation() error
}
