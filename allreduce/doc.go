// Package allreduce sums a buffer over the members of a ring, so that every member ends with the same sum. It is made
// for training: buffers from a kilobyte to some megabytes, and up to a few dozen members. A failed sum ends the
// generation and names the member to blame; it never ends the process.
//
// # The ring
//
// A member (rank) has two neighbours: it receives from the left one and sends to the right one. Each of the two
// streams, a [Link], lives as long as the ring.
//
//	      chunk by chunk, always to the right
//	   ┌────────┐     ┌────────┐     ┌────────┐     ┌────────┐
//	┌─▶│ rank 0 │────▶│ rank 1 │────▶│ rank 2 │────▶│ rank 3 │─┐
//	│  └────────┘     └────────┘     └────────┘     └────────┘ │
//	└──────────────────────────────────────────────────────────┘
//
// The buffer is cut into as many chunks as there are ranks. In the reduce-scatter, of N-1 hops, each chunk travels once
// around the ring, and every member on its way adds its own part. Then each chunk is complete on one member. In the
// all-gather, of N-1 more hops, the complete chunks travel around once more, and every member keeps a copy.
//
// # An example with four ranks
//
// Rank r's buffer has the chunks r0 r1 r2 r3. In hop h rank r sends chunk (r-h) mod 4; the first is its own.
//
//	hop            rank 0 sends    rank 1 sends    rank 2 sends    rank 3 sends
//	0 (scatter)    00              11              22              33
//	1              03+33           10+00           21+11           32+22
//	2              02+32+22        13+03+33        20+10+00        31+21+11
//	3 (gather)     Σ1              Σ2              Σ3              Σ0
//	4              Σ0              Σ1              Σ2              Σ3
//	5              Σ3              Σ0              Σ1              Σ2
//
// In hop 2 rank 0 receives 31+21+11 from rank 3 and adds 01: that is Σ1, the sum of all chunks 1, which it keeps and
// sends on in hop 3. After hop 5 all four have Σ0 to Σ3.
//
// # Segments and rounds
//
// A chunk is sent in segments of at most 60 KB, one frame each, so that sending, receiving and adding overlap: segment
// s of a hop is sent as soon as segment s of the hop before has arrived. The plan, a pure function of length, size,
// segment and window, states it in one line: frame i passes on what frame i-segments brought. A buffer whose chunks
// exceed the window is summed in rounds; no member has more than one window of its own bytes in flight.
//
// The addition writes its result straight into the next frame and computes both checksums in the same pass over the
// data. The caller's buffer is never lent to a link, so that it belongs to the caller again when [Ring.Sum] returns,
// even while a stream still holds frames. In steady state a sum allocates nothing in this package.
//
// # Costs
//
// With N members, B bytes, b seconds a byte and a seconds a hop (latency and the work that each frame costs), every
// member sends and receives 2(N-1)/N·B bytes in 2(N-1) hops:
//
//	t = 2(N-1)·a + 2(N-1)/N·B·b
//
// No algorithm moves fewer bytes. A ring is the right choice while the second term is larger, that is while B > N·a/b.
// Below that, and from some hundred members on, latency dominates. ARCHITECTURE.md has the measured a and b.
//
// A ring sums int64, which is exact: neither the order of the ring nor N changes a sum.
//
// # The contract of failure
//
//   - Every frame names its job, generation, number of the Sum, step, length, sender and place.
//     A Sum that received any other frame returns an error.
//   - Checksums find damage, also in a member's memory between the sum and the last copy: the member that completes a
//     chunk computes its checksum, and the others pass that checksum on.
//   - Every wait ends with the context of its Sum. The ring learns at once that a neighbour died or gave up, also
//     between Sums: [Ring.Done].
//   - The first failure poisons the ring: it breaks both links, the Sum returns, and each later one returns the same
//     [*Error]. Nothing is retried. The neighbours break their links in turn, so that all members learn it within the
//     time of a few messages.
//   - An [*Error] names the rank that waited, the peer that it waited for, phase, chunk, segment and duration. Its
//     [Kind] says whether that peer is to blame: a Deadline names the silent peer, a Relayed failure repeats what the
//     peer said about another member.
//   - A member leaves in good order by [Ring.Close], which returns when its right neighbour has all frames.
//
// # Goroutines
//
// A ring of more than one member has three goroutines, which end with it: one watches the deadline of the running Sum,
// and one watches each link. The sum itself runs on the caller's goroutine.
package allreduce
