// Package progress holds what a job tells people and scripts: typed events, and
// everything that is made of them.
//
// An [Event] says what happened, a [Record] adds when. [Encode] and [Decode]
// turn a record into one line of JSON and back, which is also how events travel
// from a coordinator process to the command that renders them. Renderers are
// observers: [JSON] and [Plain] write lines, [Bar] draws a progress bar on a
// terminal, [Metrics] keeps the learning curve in a file, [Multi] feeds several,
// [Detach] keeps one that stalls from stalling who tells it.
// [Plot] draws the curve as a picture.
//
// Every observer here may be used from several goroutines, and none of them
// fails its caller: an output that cannot be written to falls silent and keeps
// its first error, for training must not stop because nobody watches.
package progress
