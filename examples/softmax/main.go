// Command softmax trains a tiny model with Evenweave: softmax regression, in plain Go, on points of a plane. It is a
// whole program: try `go run . train --workers 3`, then --help.
package main

import (
	"errors"

	"evenweave"
	"evenweave/cli"
)

// options are the program's own flags, and part of what a job is.
type options struct {
	Rate   float64 `flag:"rate" help:"learning rate"`
	Points int     `flag:"points" help:"training points"`
}

// Validate implements evenweave.Validator.
func (o *options) Validate() error {
	if o.Rate <= 0 || o.Points < 1 || o.Points > 1_000_000 {
		return errors.New("--rate must be above 0, and --points 1 to 1,000,000")
	}
	return nil
}

func task() *evenweave.Task {
	o := &options{Rate: 0.1, Points: 6000}
	return &evenweave.Task{
		Name:    "softmax",
		About:   "softmax regression on three clouds of points",
		Options: o,
		Data: func(string) (evenweave.Sets, error) {
			return evenweave.Sets{Train: points{0, o.Points}, Test: points{1_000_000, 3000}}, nil
		},
		Model:   func(evenweave.Setup) (evenweave.Model, error) { return newSoftmax(o.Rate), nil },
		Metrics: []string{"accuracy"},
	}
}

func main() { cli.Main(task()) }
