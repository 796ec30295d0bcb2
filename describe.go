package evenweave

// Describer may be implemented by a Model, to show people what is trained.
type Describer interface {
	// Layers is the table shown at the start, input first.
	Layers() []Layer
	// Schedule says why the job's length changes the result ("the learning rate falls to 0 at the last step"), "" if it
	// does not: only then can a job be extended.
	Schedule() string
}

// Scheduler may be implemented by a Model whose learning rate is a function of the step, to show it to people.
type Scheduler interface {
	// LearningRate is that of an update; the first is 0. It must not depend on the state.
	LearningRate(step int64) float64
}

// Layer is one row of the table shown at the start.
type Layer struct {
	Name       string `json:"name"`
	Output     string `json:"output"` // shape of one sample's output, as people write it: "28x28x32"
	Parameters int    `json:"parameters"`
}

// Inspector may be implemented by a Model that knows more of its variables than Tensors says, for `PROGRAM inspect`.
type Inspector interface {
	// Variables are those of the model and its optimizer, in the order of Tensors.
	Variables() []Variable
}

// Variable is what people are shown of a part of the state, or of what the seed makes for each micro-batch.
type Variable struct {
	Name  string
	Type  DType
	Shape []int
	// Role is that of the tensor; or "equal" where the forward pass changes it in the same way for each micro-batch,
	// "generator" for the state of random numbers, which is no part of the model's state.
	Role string
}
