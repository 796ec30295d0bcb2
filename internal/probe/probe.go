// Package probe derives from a task's model what the trainer needs beside computing: the golden probe, the hash of the
// weights, the names of gradient elements, the first state.
package probe

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"math"

	"evenweave"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// Initial is the state of step 0: what the model's Init makes of the seed. The model holds it afterwards.
func Initial(model evenweave.Model, layout *state.Layout, seed uint64, samples int) (*state.State, error) {
	if err := model.Init(seed); err != nil {
		return nil, fmt.Errorf("initial weights of seed %d: %w", seed, err)
	}
	s := state.New(layout, samples)
	return s, layout.ReadImage(model, 0, s.Image)
}

// WeightsSHA256 is the hexadecimal SHA-256 of the tensors of role trained, then of those of role averaged, in their
// order, as a state encodes them.
func WeightsSHA256(s *state.State) string {
	h := sha256.New()
	for _, role := range []evenweave.Role{evenweave.Trained, evenweave.Averaged} {
		for i, t := range s.Layout.Tensors {
			if t.Role == role {
				h.Write(s.Tensor(i))
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))
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

// Numerics is the golden probe: the SHA-256 of what Gradients gives for the first micro-batch of a plan and of what
// Update makes of it, in the middle of the schedule, where a learning rate shows. The state is filled by a hash of its
// places, so the probe depends on the model's arithmetic and the data alone. Afterwards the model's state is undefined.
func Numerics(model evenweave.Model, data evenweave.Data, plan schedule.Plan, total int64) (string, error) {
	layout, err := state.NewLayout(model.Tensors())
	if err != nil {
		return "", err
	}
	s := state.New(layout, plan.Samples)
	fill(s)
	if err := layout.WriteImage(model, s.Image); err != nil {
		return "", err
	}
	b := &evenweave.Batch{Samples: make([]int32, plan.MicroBatch), Seed: plan.Seed}
	b.Key = evenweave.Key(plan.Seed, evenweave.PurposeDropout, 0, 0)
	schedule.NewSampler(plan).MicroBatch(0, 0, b.Samples)
	if err := data.Load(b); err != nil {
		return "", fmt.Errorf("the first micro-batch: %w", err)
	}
	flat := make([]float32, layout.Summed())
	sums, err := model.Gradients(b, layout.Split(flat))
	if err != nil {
		return "", err
	}
	h := sha256.New()
	write(h, math.Float64bits(sums.Loss), uint64(sums.Weight))
	for _, m := range sums.Metrics {
		write(h, uint64(m))
	}
	for i, g := range flat {
		write(h, uint64(math.Float32bits(g)))
		flat[i] = g / float32(max(sums.Weight, 1))
	}
	if err := model.Update(layout.Split(flat), total/2); err != nil {
		return "", err
	}
	if err := layout.ReadImage(model, 0, s.Image); err != nil {
		return "", err
	}
	h.Write(s.Image)
	return hex.EncodeToString(h.Sum(nil)), nil
}

func write(h hash.Hash, words ...uint64) {
	var b [8]byte
	for _, w := range words {
		binary.LittleEndian.PutUint64(b[:], w)
		h.Write(b[:])
	}
}
