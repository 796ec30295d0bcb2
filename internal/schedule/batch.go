package schedule

// Batch holds the host buffers of one micro-batch. The loader that fills it owns it; a model only reads it.
type Batch struct {
	Inputs     []byte    // the raw inputs, one sample after the other
	Labels     []uint8   // one a sample
	Weights    []float32 // one a sample: 1, or 0 for padding
	Samples    []int32   // dataset index of each sample, -1 for padding
	Key        uint64    // the key of this micro-batch's randomness (dropout)
	Epoch      int64
	Step       int64 // 0-based index of the update that this micro-batch contributes to
	MicroBatch int   // its place in the global batch, 0 <= MicroBatch < Plan.MicroBatches()
}
