package evenweave

// Describer may be implemented by a Model, to show people what is trained.
type Describer interface {
	// Layers is the table shown at the start, input first.
	Layers() []Layer
	// Schedule says why the job's length changes the result ("the learning rate falls to 0 at the last step"), "" if it
	// does not: only then can a job be extended.
	Schedule() string
}

// Layer is one row of the table shown at the start.
type Layer struct {
	Name       string
	Output     string // shape of the output, as people write it: "28x28x32"
	Parameters int
}
