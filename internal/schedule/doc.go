// Package schedule decides, with pure integer arithmetic, which samples each step uses, in which order, and which rank
// computes them: the epoch's order (Sampler), the slicing of the global batch into micro-batches (Plan), their
// assignment to ranks (Assignment), and the record of what was used (Ledger).
//
// Nothing here depends on the number of workers, on time, or on a generator that keeps state: every number comes from
// an explicit Key, so that any member can compute any micro-batch of any step and get the same bits.
//
//	epoch order   7 2 9 0 4 1 8 3 5 6            a pure function of (seed, epoch)
//	step          |---0---|---1---|---2-- -1 -1  global batch 4; the last one is padded with -1
//	micro-batch   |-0-|-1-|-0-|-1-|-0-|-1-       micro-batch 2: V = 2 a step
package schedule
