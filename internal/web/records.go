package web

import (
	"math"
	"time"

	"evenweave/internal/progress"
)

// none is a value that was not measured.
var none = math.NaN()

// The rows of the page. Texts are clean: printable, of bounded length. Times are milliseconds since 1970.

type jobInfo struct {
	Name          string `json:"name"`
	UUID          string `json:"uuid"`
	Model         string `json:"model"`
	Recipe        string `json:"recipe"`
	Backend       string `json:"backend"`
	State         string `json:"state"` // waiting for workers, training, recovering, done, stopped, failed
	Seed          uint64 `json:"seed,string"`
	Steps         int    `json:"steps"`
	Epochs        int    `json:"epochs"`
	StepsPerEpoch int    `json:"steps_per_epoch"`
	Samples       int    `json:"samples"`
	GlobalBatch   int    `json:"global_batch"`
	MicroBatch    int    `json:"micro_batch"`
	Step          int    `json:"step"`
	Epoch         int    `json:"epoch"`
	Workers       int    `json:"workers"`
	Generation    uint64 `json:"generation"`
	Images        int64  `json:"images"`
	Started       int64  `json:"started"`
	Ended         int64  `json:"ended,omitempty"`
	ResumedFrom   int    `json:"resumed_from"`
	WeightsSHA256 string `json:"weights_sha256,omitempty"`
}

type world struct {
	Time       int64    `json:"time"`
	Step       int      `json:"step"` // committed before it
	Generation uint64   `json:"generation"`
	Size       int      `json:"size"`
	Members    []int    `json:"members"` // their numbers, by rank
	Joined     []string `json:"joined,omitempty"`
	Left       []string `json:"left,omitempty"`
	Lost       []string `json:"lost,omitempty"`
	Planned    bool     `json:"planned"`
	Reason     string   `json:"reason"`
}

type recovery struct {
	Time       int64    `json:"time"` // of the last commit before it
	Step       int      `json:"step"` // the first after it
	Generation uint64   `json:"generation"`
	Lost       []string `json:"lost,omitempty"`
	Reason     string   `json:"reason"`
	Seconds    float64  `json:"seconds"`
}

type note struct {
	Time int64  `json:"time"`
	Step int    `json:"step"`
	Kind string `json:"kind"`
	Text string `json:"text"`
}

type checkpointInfo struct {
	Time    int64   `json:"time"`
	Step    int     `json:"step"`
	Epoch   int     `json:"epoch"`
	Path    string  `json:"path"`
	Bytes   int64   `json:"bytes"`
	Seconds float64 `json:"seconds"`
}

// wait is an edge: a member waited for another one.
type wait struct {
	Time    int64   `json:"time"`
	Number  int     `json:"number"`
	Member  string  `json:"member"`
	For     string  `json:"for"`
	Kind    string  `json:"kind"`
	Phase   string  `json:"phase"`
	Step    int     `json:"step"`
	Seconds float64 `json:"seconds"`
}

// totals are of the committed steps whose time is known.
type totals struct {
	Seconds    float64 `json:"seconds"` // from commit to commit
	Productive float64 `json:"productive"`
	Samples    float64 `json:"samples"`
}

type member struct {
	Number     int     `json:"number"`
	ID         string  `json:"id"`
	Rank       int     `json:"rank"`
	Host       string  `json:"host"`
	Address    string  `json:"address"`
	PID        int     `json:"pid"`
	State      string  `json:"state"` // spare, training, left, lost, refused
	Why        string  `json:"why,omitempty"`
	Phase      string  `json:"phase"`
	Step       int     `json:"step"`
	Generation uint64  `json:"generation"`
	Since      int64   `json:"since"`
	Ended      int64   `json:"ended,omitempty"`
	Share      int     `json:"share"` // micro-batches assigned
	ComputeMS  float64 `json:"compute_ms"`
	WaitMS     float64 `json:"wait_ms"`
	ReduceMS   float64 `json:"reduce_ms"`
	UpdateMS   float64 `json:"update_ms"`

	reported time.Time     // its newest step
	wait     progress.Wait // noted
}

// take smooths the times of a step: one alone is noisy.
func (m *member) take(s progress.StepTiming) {
	const weight = 0.1
	smooth := func(to *float64, d time.Duration) {
		x := float64(d) / 1e6
		if *to == 0 {
			*to = x
		}
		*to += weight * (x - *to)
	}
	smooth(&m.ComputeMS, s.Compute)
	smooth(&m.WaitMS, s.Wait)
	smooth(&m.ReduceMS, s.Reduce)
	smooth(&m.UpdateMS, s.Update)
	if s.MicroBatches > 0 { // else of a world that is gone
		m.Share = s.MicroBatches
	}
}
