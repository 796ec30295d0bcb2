package probe

import (
	"bufio"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"io"
	"math"

	"evenweave"
	"evenweave/internal/schedule"
	"evenweave/internal/state"
)

// Golden is what the golden probe gives. Members of equal Hash may train together.
type Golden struct {
	Hash string // SHA-256, hexadecimal
	// Parts has a short hash for the sums, for each gradient and for each tensor of the state after the update, in this
	// order: FirstDifference finds in it where two probes begin to differ.
	Parts string
}

const (
	partBytes = 3    // of each hash: the whole Hash decides, so a collision here only names a later tensor
	mostParts = 1000 // more are left out, so that records stay small
)

// Numerics is the golden probe: the SHA-256 of what Gradients gives for the first micro-batch of a plan and of the
// state after a step of that micro-batch alone, in the middle of the schedule, where a learning rate shows. The model's
// state is filled by a hash of its places, so the probe depends on the model's arithmetic, the sum's and the data
// alone. Afterwards the model's state is undefined.
func Numerics(model evenweave.Model, data evenweave.Data, plan schedule.Plan, total int64) (Golden, error) {
	layout, err := state.OfJob(model.Tensors())
	if err != nil {
		return Golden{}, err
	}
	live := layout.Live(model)
	if err := fill(layout, live); err != nil {
		return Golden{}, err
	}
	b := &evenweave.Batch{Samples: make([]int32, plan.MicroBatch), Seed: plan.Seed}
	b.Key = evenweave.Key(plan.Seed, evenweave.PurposeDropout, 0, 0)
	schedule.NewSampler(plan).MicroBatch(0, 0, b.Samples)
	if err := data.Load(b); err != nil {
		return Golden{}, fmt.Errorf("the first micro-batch: %w", err)
	}
	flat := make([]float32, layout.Summed())
	grads := layout.Split(flat)
	sums, err := model.Gradients(b, grads)
	if err != nil {
		return Golden{}, err
	}
	p := parts{whole: sha256.New()}
	p.part(func(w *bufio.Writer) {
		write(w, math.Float64bits(sums.Loss), uint64(sums.Weight))
		for _, m := range sums.Metrics {
			write(w, uint64(m))
		}
	}, p.whole)
	for _, grad := range grads {
		p.part(func(w *bufio.Writer) {
			for _, g := range grad {
				write(w, uint64(math.Float32bits(g)))
			}
		}, p.whole)
	}
	// The mean takes the gradient's place, in which it is formed last.
	_, bad := layout.Blocks().Step(flat, [][]float32{flat}, live.Exponents, max(sums.Weight, 1), total/2)
	if bad >= 0 { // it is in the hash; such a step makes no update
		clear(flat)
		clear(live.Exponents)
	}
	if err := model.Update(grads, total/2); err != nil {
		return Golden{}, err
	}
	for i, t := range layout.Tensors {
		p.part(func(w *bufio.Writer) {
			err = pieces(t, func(at int64, piece []byte) error {
				if err := live.Read(i, at, piece); err != nil {
					return fmt.Errorf("reading tensor %s: %w", t.Name, err)
				}
				_, _ = w.Write(piece) // a hash takes everything
				return nil
			})
		}, p.whole)
		if err != nil {
			return Golden{}, err
		}
		end := layout.Size
		if i+1 < len(layout.Offsets) {
			end = layout.Offsets[i+1]
		}
		p.whole.Write(make([]byte, end-layout.Offsets[i]-t.Bytes())) // the gap behind it, in the image
	}
	// An update takes the places of what the gradients before it used. What those after it use is in memory then, and
	// the others need not wait for that when this member joins.
	if layout.Size >= state.Large {
		if _, err := model.Gradients(b, grads); err != nil {
			return Golden{}, err
		}
	}
	return Golden{Hash: hex.EncodeToString(p.whole.Sum(nil)), Parts: base64.RawURLEncoding.EncodeToString(p.short)}, nil
}

// parts hashes everything together, and each part on its own.
type parts struct {
	whole hash.Hash
	short []byte
}

// part hashes what put writes, and passes it on to also.
func (p *parts) part(put func(*bufio.Writer), also io.Writer) {
	own := sha256.New()
	w := bufio.NewWriterSize(io.MultiWriter(own, also), 64<<10)
	put(w)
	_ = w.Flush() // a hash takes everything
	if len(p.short) < mostParts*partBytes {
		p.short = append(p.short, own.Sum(nil)[:partBytes]...)
	}
}

func write(w *bufio.Writer, words ...uint64) {
	for _, x := range words {
		_, _ = w.Write(binary.LittleEndian.AppendUint64(w.AvailableBuffer(), x)) // a hash takes everything
	}
}

// FirstDifference names what differs first between two probes' Parts, in words that follow "first in". "" if that is
// not known: one of them has none, or they are of different models.
func FirstDifference(layout *state.Layout, a, b string) string {
	if len(a) != len(b) || a == b {
		return ""
	}
	x, errA := base64.RawURLEncoding.DecodeString(a)
	y, errB := base64.RawURLEncoding.DecodeString(b)
	if errA != nil || errB != nil {
		return ""
	}
	names := []string{"the sums of loss and metrics"}
	for _, t := range layout.Tensors {
		if t.Summed() {
			names = append(names, "the gradient of "+t.Name)
		}
	}
	for _, t := range layout.Tensors {
		names = append(names, t.Name+" after one update")
	}
	for i := range x {
		if x[i] != y[i] && i/partBytes < len(names) {
			return names[i/partBytes]
		}
	}
	return ""
}
