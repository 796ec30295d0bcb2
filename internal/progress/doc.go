// Package progress holds a job's typed events, which people and scripts read, and their renderers.
//
// An [Event] is what happened, a [Record] adds the time. [Encode] and [Decode] turn a record into one line of JSON and
// back; a coordinator process sends its events to the command that renders them in this form. Renderers are observers:
// [JSON] and [Plain] write lines, [Bar] draws a progress bar on a terminal, [Metrics] keeps the learning curve in a
// file, [Multi] passes events to several, [Detach] decouples one that stalls from its caller.
//
// Every observer here is safe for concurrent use, and none of them fails its caller: after its first error an output
// keeps that error and writes no more, because a broken output must not stop training.
package progress
