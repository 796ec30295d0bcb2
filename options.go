package evenweave

import "context"

// Validator may be implemented by a task's options. The trainer calls Validate once all values are set, before anything
// is started; an error is bad usage (exit code 2).
//
// Options are the exported fields of a struct, of type string, bool, int, int64, uint64, float64 or time.Duration, or
// of one that reads and writes text (encoding.TextUnmarshaler, TextMarshaler) as gomlx.Params do. The value that a
// field has when main starts is the default. Tags say the rest:
//
//	type options struct {
//		Hidden int     `flag:"hidden" help:"units of the hidden layer" min:"1" max:"4096"`
//		Rate   float64 `flag:"rate" help:"learning rate" above:"0"`
//		Threads int    `flag:"threads" help:"threads that load data" spec:"-"`
//		From    string `flag:"from" help:"file of weights to start from" spec:"-,create"`
//		Weights string `spec:"weights"`
//	}
//
// flag names the command line's flag; the variable EVENWEAVE_HIDDEN sets it too. A field is part of the job's spec
// under its flag's name, or the one in spec: a job is not resumed with another value, and a worker gets the values that
// the job has. spec:"-" leaves a field out: it must not change a bit of the result, and each process, a worker too, has
// the flag for itself. spec:"-,create" is for what only Prepare reads: a worker has no such flag. A field without a
// flag but with a spec name is set by Prepare. min, max and above bound a number: values beyond are bad usage, Validate
// is for what several options say together. Fields of an embedded struct count as the struct's own. Names have at most
// 40 characters a-z, 0-9 and -.
type Validator interface{ Validate() error }

// Preparer may be implemented by a task's options: Prepare is called in the process that creates or resumes a job,
// after Validate and before the spec is made, and in the one that initialises the model. It may set fields that are no
// flags (the hash of a file that a flag names, for example), and read what Init needs. notes explain it to a person.
type Preparer interface {
	Prepare(ctx context.Context) (notes []string, err error)
}
