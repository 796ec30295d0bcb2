package evenweave

import (
	"context"
	"io"
)

// Command is a command of a program's own: `PROGRAM NAME [flags] [ARG...]`. It has the flag -o text|json beside its
// own.
type Command struct {
	Name string
	// Args is what follows the flags, as --help shows it: "IMAGE..." is one argument or more, "[TEXT]" may be left out,
	// "": there is none. Others are bad usage.
	Args  string
	About string // one line
	Long  string // the rest of --help; may be empty
	// Options points to a struct of flags, as Task.Options does; no part of any spec.
	Options any
	// Checkpoint gives the command the flags --checkpoint, --dir and, if the task has a choice, --backend, and Run the
	// model with the state of the checkpoint that they name (the newest of --dir).
	Checkpoint bool
	// Outputs are what -o takes beside text and json.
	Outputs []string
	// Data gives it --data, for Invocation.Dir.
	Data bool
	// Run does the work. A UsageError exits with 2, other errors with 1.
	Run func(ctx context.Context, c *Invocation) error
}

// Invocation is one call of a Command.
type Invocation struct {
	Args           []string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	// Output is what -o names, JSON whether that is json.
	Output string
	JSON   bool
	// Dir is what --data names, "" by default.
	Dir string
	// Draw writes a PNG file with rows of pictures for each gallery.
	Draw func(path string, rows []Gallery) error
	// Page writes what an evaluation found as one page of HTML that needs no other file; about says what was measured.
	Page func(w io.Writer, about string, figures []Figure, d Details) error
	// Loaded is the model that the command's checkpoint holds, opened for evaluation; the job's options are in
	// Task.Options. It is closed after Run. nil for a command without Checkpoint.
	*Loaded
}

// Loaded is a model with a trained state.
type Loaded struct {
	Model Model
	// Step and Epoch of the state, and the SHA-256 of its weights in hexadecimal.
	Step, Epoch   int64
	WeightsSHA256 string
	// Path of the checkpoint's file.
	Path string
}

// UsageError is an error of the command line's user: the program exits with 2 and points to --help.
type UsageError struct{ Err error }

// Error implements error.
func (e UsageError) Error() string { return e.Err.Error() }

// Unwrap implements error's chain.
func (e UsageError) Unwrap() error { return e.Err }
