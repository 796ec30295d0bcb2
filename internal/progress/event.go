package progress

import (
	"time"

	"evenweave"
)

// Event is what happened: one of the structs of this file, or [Unknown].
type Event interface {
	// Kind is the value of the JSON field "event".
	Kind() string
}

// Record is an event and when it happened.
type Record struct {
	Time  time.Time
	Event Event
}

// Observer receives every event in order. Observe must be safe for concurrent use.
type Observer interface {
	Observe(Record)
}

// Start opens a job, or goes on with one that was stopped.
type Start struct {
	Job           string            `json:"job"`
	UUID          string            `json:"uuid"`
	Model         string            `json:"model,omitempty"`
	Recipe        string            `json:"recipe,omitempty"`
	Seed          uint64            `json:"seed"`
	Backend       string            `json:"backend"`
	Workers       int               `json:"workers"` // asked for; a World says how many there are
	Steps         int               `json:"steps"`   // of the whole job, also when resumed
	Epochs        int               `json:"epochs"`
	StepsPerEpoch int               `json:"steps_per_epoch"`
	Samples       int               `json:"samples"` // of one epoch
	GlobalBatch   int               `json:"global_batch"`
	MicroBatch    int               `json:"micro_batch"`
	ResumedFrom   int               `json:"resumed_from"` // the committed step that it goes on from; 0: the start
	Layers        []evenweave.Layer `json:"layers,omitempty"`
}

// Step is a committed step.
type Step struct {
	Step             int     `json:"step"`  // counted from 1
	Epoch            int     `json:"epoch"` // the one the step belongs to, counted from 1
	Loss             float64 `json:"loss"`  // mean over the step's samples, before its update
	Generation       uint64  `json:"generation"`
	Workers          int     `json:"workers"`
	Images           int64   `json:"images"`  // used by all committed steps so far
	Seconds          float64 `json:"seconds"` // this step took
	SamplesPerSecond float64 `json:"samples_per_second"`
	// The phases of the slowest rank, in milliseconds: its own micro-batches, the all-reduce, the part of it spent
	// waiting for a neighbour, the update.
	ComputeMS float64 `json:"compute_ms"`
	ReduceMS  float64 `json:"reduce_ms"`
	WaitMS    float64 `json:"wait_ms"`
	UpdateMS  float64 `json:"update_ms"`
	// Skipped says what was not finite in a step that changed nothing but the position in the data; Loss and Metrics
	// are those of what was finite in it, which may be nothing.
	Skipped string `json:"skipped,omitempty"`
	Skips   int    `json:"skips,omitempty"` // skipped steps so far, this one included
	// Means over the step's samples, like Loss, in the order of the task's names. In JSON each is a field of its name.
	Metrics []Metric `json:"-"`
}

// World is a new world: from here on these members train together.
type World struct {
	Generation uint64   `json:"generation"`
	Size       int      `json:"size"`
	Members    []Member `json:"members"` // by rank
	Reason     string   `json:"reason"`
	Planned    bool     `json:"planned"` // the last world finished its step first; false: it broke, or there was none
}

// Member is a process in a world.
type Member struct {
	ID      string `json:"id"`
	Rank    int    `json:"rank"`
	Address string `json:"address"`
	PID     int    `json:"pid"`
	Host    string `json:"host"`
}

// Checkpoint is a checkpoint that is verified and durable.
type Checkpoint struct {
	Step    int     `json:"step"`
	Epoch   int     `json:"epoch"`
	Path    string  `json:"path"`
	Seconds float64 `json:"seconds"`
	Bytes   int64   `json:"bytes"`
}

// Evaluation is the state after Step, measured on the whole test set.
type Evaluation struct {
	Step    int     `json:"step"`
	Epoch   int     `json:"epoch"`
	Seconds float64 `json:"seconds"`
	// All figures that the task's evaluation gives, in its order: on the test set, and on the samples that are kept out
	// of training, if any are. In JSON each is a field test_NAME or holdout_NAME too.
	Figures []evenweave.Figure `json:"figures,omitempty"`
	Holdout []evenweave.Figure `json:"holdout,omitempty"`
}

// The values of [MemberChange.What].
const (
	Ready   = "ready"   // loaded and warm: can be admitted to a world
	Left    = "left"    // in good order
	Lost    = "lost"    // removed after a confirmed report or a failed probe
	Refused = "refused" // not admitted
)

// MemberChange is a member that comes or goes.
type MemberChange struct {
	ID     string `json:"id"`
	What   string `json:"what"` // Ready, Left, Lost or Refused
	Detail string `json:"detail,omitempty"`
}

// Notice is information that needs no action.
type Notice struct {
	Message string `json:"message"`
}

// Warning is something that a person may want to act on; the job goes on.
type Warning struct {
	Message string `json:"message"`
}

// Failure is why a generation or the job ended. Message is complete by itself; the other fields are set where known (a
// nil Rank is unknown).
type Failure struct {
	Message    string `json:"message"`
	Member     string `json:"member,omitempty"`
	Generation uint64 `json:"generation,omitempty"`
	Step       int    `json:"step,omitempty"`
}

// Done is the last event of a job's process.
type Done struct {
	Step       int    `json:"step"`
	Epoch      int    `json:"epoch"`
	Workers    int    `json:"workers"`
	Generation uint64 `json:"generation"`
	// Of the last step; none where it was not evaluated, as when stopped early. In JSON each is a field test_NAME too.
	Figures []evenweave.Figure `json:"figures,omitempty"`
	// Over the parameters in documented order, and over the whole state, in hex.
	WeightsSHA256    string  `json:"weights_sha256"`
	Fingerprint      string  `json:"fingerprint"`
	SamplesPerSecond float64 `json:"samples_per_second"` // first to last committed step
	WallSeconds      float64 `json:"wall_seconds"`
	Backend          string  `json:"backend"`
	Skipped          int     `json:"skipped,omitempty"` // steps that were not finite, of those in metrics.jsonl
	Complete         bool    `json:"complete"`          // false: stopped early, to be resumed
	Checkpoint       string  `json:"checkpoint"`        // path of the last one
}

// Unknown is an event of a kind that only another version knows. It keeps the whole line, so that passing it on loses
// nothing.
type Unknown struct {
	Name string
	Line []byte
}

// Page says where the live page is. Its address holds a secret, which is no other process's business.
type Page struct {
	URL string `json:"url"`
}

func (Start) Kind() string        { return "start" }
func (Step) Kind() string         { return "step" }
func (World) Kind() string        { return "world" }
func (Checkpoint) Kind() string   { return "checkpoint" }
func (Evaluation) Kind() string   { return "evaluation" }
func (MemberChange) Kind() string { return "member" }
func (Notice) Kind() string       { return "notice" }
func (Warning) Kind() string      { return "warning" }
func (Failure) Kind() string      { return "failure" }
func (Done) Kind() string         { return "done" }
func (Page) Kind() string         { return "page" }
func (u Unknown) Kind() string    { return u.Name }
