// Package web shows a job to people: a page that follows it live, and the same page as one file after it.
//
//	page.go      the observer: what it keeps across a restart, and its bounds
//	history.go   events and reports become what the page shows
//	curve.go     metrics by step, downsampled
//	timeline.go  what each member did when, downsampled
//	recent.go    lists that keep their newest items
//	update.go    the JSON that a browser gets: all, or what changed since
//	handler.go   the page, the snapshot and the stream, behind a token
//	report.go    the page as one self-contained file
//	static/      HTML, CSS and JavaScript, without a build step and without a dependency
//
// A [Page] takes a bounded amount of memory for a job of any length. It never blocks what it observes: it locks for
// microseconds, and encodes and writes elsewhere.
package web
