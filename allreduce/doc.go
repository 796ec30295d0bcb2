// Package allreduce sums a buffer over the members of a ring, so that every member ends with the same sum. It is made for training: buffers from a kilobyte to some megabytes, a few to a few dozen members, and the rule that a
// failed sum ends the generation, says who is to blame, and never the process.
//
// # The ring
//
// A member (rank) talks to two others only: it receives from its left neighbour and sends to its right one, over one long-lived stream each, a [Link].
//
//	      chunk by chunk, always to the right
//	   ┌────────┐     ┌────────┐     ┌────────┐     ┌────────┐
//	┌─▶│ rank 0 │────▶│ rank 1 │────▶│ rank 2 │────▶│ rank 3 │─┐
//	│  └────────┘     └────────┘     └────────┘     └────────┘ │
//	└──────────────────────────────────────────────────────────┘
//
// The buffer is cut into as many chunks as there are ranks. In the reduce-scatter, of N-1 hops, each chunk travels once around the ring and every member that it passes adds its own part. After that the chunk is complete on one
// member. In the all-gather, of N-1 more hops, the complete chunks travel around once more and everybody keeps a copy.
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
// In hop 2 rank 0 receives 31+21+11 from rank 3 and adds 01: that is Σ1, the sum of all chunks 1, which it keeps and sends on in hop 3. After hop 5 all four have Σ0 to Σ3.
//
// # Segments and rounds
//
// A chunk is sent in segments of at most 60 KB, one frame each, so that sending, receiving and adding overlap: segment s of a hop goes out as soon as segment s of the hop before has come in. In the plan, which is a pure function of
// length, size and segment, this is one line: frame i passes on what frame i-segments brought. A buffer whose chunks exceed the window is summed in rounds; no member has more than one window of its own on its way.
//
// Frames are written by the additions themselves: the bytes that come in, plus this member's part, go straight into the frame that goes out, and both checksums are taken in the same pass over the data. The caller's buffer is
// therefore never lent to a link, and is the caller's again when [Ring.Sum] returns, even when a stream still holds frames. In steady state a sum allocates nothing in this package.
//
// # Costs
//
// With N members, B bytes, b seconds a byte and a seconds a hop (latency and the work that each frame costs), every member sends and receives 2(N-1)/N·B bytes in 2(N-1) hops:
//
//	t = 2(N-1)·a + 2(N-1)/N·B·b
//
// No algorithm moves fewer bytes; a ring is what to use while the second term is larger, that is while B > N·a/b. Below that, and from some hundred members, latency rules: see ARCHITECTURE.md for the measured a and b.
//
// int64 sums are exact, so they do not depend on the order of the ring nor on N. float32 sums are rounded in the order of the ring: they are the same on every member, but another N gives others.
//
// # The contract of failure
//
//   - Every frame is fenced by job, generation, number of the Sum, step, length, element type, sender and place. What does not fit is never added to a result that Sum calls good.
//   - Damage is found by checksums, also damage in a member's memory between the sum and the last copy: whoever completes a chunk signs it, and the others pass its checksum on.
//   - Every wait ends with the context of its Sum. When a neighbour dies or gives up, the ring learns it at once, between Sums too: [Ring.Done].
//   - The first failure poisons the ring: both links are broken, the Sum returns, and each later one returns the same [*Error]. Nothing is retried. The neighbours break their links in turn, so that all members know within a few
//     messages' time.
//   - An [*Error] says who waited for whom, in which phase, for which chunk and segment, and how long. Its [Kind] says whether to look at that neighbour or beyond it: a Deadline names who was silent, a Relayed failure repeats what
//     the neighbour said of another.
//   - A member leaves in good order by [Ring.Close], which returns when the right neighbour has acknowledged its last byte.
//
// # Goroutines
//
// A ring of more than one member has three, which end with it: one watches the deadline of the running Sum, one each link. The sum itself runs on the caller's.
package allreduce
