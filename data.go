package evenweave

// Data is an indexed set of samples that does not change while a job goes on. Its methods are called by several
// goroutines at once.
type Data interface {
	// Len is the number of samples, at most 2^31-1.
	Len() int
	// Digest names the bytes of the data and their order: two processes whose digests are equal load equal content for
	// every index. It is recorded in the spec, and a process with other data is refused. Printable, at most 128 bytes.
	Digest() string
	// Load fills b.Content with the samples that b.Samples names. It may reuse what b.Content holds from an earlier
	// call. Padding (index -1) must become content that is finite and of no weight. An error that comes again for the
	// same step ends the job, by name.
	Load(b *Batch) error
}

// Prefetcher may be implemented by Data: Prefetch gets the samples that a later Load will ask for, so that reading them
// can begin. It must return at once; b is only valid during the call.
type Prefetcher interface{ Prefetch(b *Batch) }

// Padding is the index, in Batch.Samples, of a place that holds no sample: the last global batch of an epoch is filled
// up with it.
const Padding = -1

// Batch is one micro-batch: the unit of work. The trainer sets all fields but Content; one goroutine uses a batch at a
// time.
type Batch struct {
	// Samples are indices into the data, Padding for places without a sample. As long as Setup.MicroBatch.
	Samples []int32
	// Epoch and Step count from 0; Step is the index of the update that this micro-batch contributes to.
	Epoch, Step int64
	// MicroBatch is its place in the global batch, from 0.
	MicroBatch int
	// Seed of the job, for what depends on a sample and an epoch alone, as augmentation does.
	Seed uint64
	// Key is different for each micro-batch of each step of a seed: all randomness of Gradients (dropout) must come
	// from it.
	Key uint64
	// Content is what Data loads for Model: the two agree on its type. It stays in the batch for reuse.
	Content any
}
