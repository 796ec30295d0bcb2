// Package probe derives from a task's model what the trainer needs beside computing: the golden probe, the hash of the
// weights, the names of gradient elements, the first state.
package probe

import (
	"fmt"

	"evenweave"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// Initial is the state of step 0: what the model's Init makes of the seed, and zeros in the tool's own tensors,
// whatever the weights are. The model holds it afterwards, and must not change before it is read.
func Initial(model evenweave.Model, layout *state.Layout, seed uint64, samples int) (state.Stream, error) {
	if err := model.Init(seed); err != nil {
		return state.Stream{}, fmt.Errorf("initial weights of seed %d: %w", seed, err)
	}
	return layout.StreamOf(0, schedule.NewLedger(samples), layout.Live(model))
}

// ElementName names element i of a flat gradient for a person: "conv1/kernel[17]".
func ElementName(layout *state.Layout, i int) string {
	within := i
	for _, t := range layout.Tensors {
		if !t.Summed() {
			continue
		}
		n := t.Elements()
		if within < n {
			return fmt.Sprintf("%s[%d]", t.Name, within)
		}
		within -= n
	}
	return fmt.Sprintf("element %d", i)
}
