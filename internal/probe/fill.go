package probe

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"

	"evenweave"
	"evenweave/internal/state"
)

// fill gives every element a small finite value that a type of its kind holds exactly: parameters between -1/16 and
// 1/16; everything else above 0 and at most 1/16, because it may be a variance; integers from 1 to 8, because they may
// count. The tool's own tensors stay as they are at step 0.
func fill(layout *state.Layout, to state.Writer) error {
	for i, t := range layout.Tensors {
		if strings.HasPrefix(t.Name, state.Reserved) {
			continue
		}
		random := evenweave.NewGenerator(evenweave.Key(0, evenweave.PurposeInit, uint64(i)))
		size := t.Type.Size()
		err := pieces(t, func(at int64, piece []byte) error {
			for p := piece; len(p) > 0; p = p[size:] {
				put(p[:size], t, random.Uint64())
			}
			return to.Write(i, at, piece)
		})
		if err != nil {
			return fmt.Errorf("writing tensor %s: %w", t.Name, err)
		}
	}
	return nil
}

// pieces calls do for parts of a tensor, in order, each with memory for it: no tensor is here as a whole.
func pieces(t evenweave.Tensor, do func(at int64, piece []byte) error) error {
	const most = 64 << 10 // a multiple of each element's size
	memory := make([]byte, min(t.Bytes(), most))
	for at := int64(0); at < t.Bytes(); at += most {
		if err := do(at, memory[:min(most, t.Bytes()-at)]); err != nil {
			return err
		}
	}
	return nil
}

// put encodes the value that h stands for.
func put(p []byte, t evenweave.Tensor, h uint64) {
	digits := 23
	if len(p) == 2 { // as many as a bfloat16 holds
		digits = 7
	}
	n := h >> (64 - digits)
	v := math.Ldexp(float64(n+1), -digits-4)
	if t.Role == evenweave.Trained {
		v = math.Ldexp(float64(int64(n)-1<<(digits-1)), -digits-3)
	}
	switch t.Type {
	case evenweave.Float64:
		binary.LittleEndian.PutUint64(p, math.Float64bits(v))
	case evenweave.Float32:
		binary.LittleEndian.PutUint32(p, math.Float32bits(float32(v)))
	case evenweave.BFloat16:
		binary.LittleEndian.PutUint16(p, uint16(math.Float32bits(float32(v))>>16))
	case evenweave.Float16:
		binary.LittleEndian.PutUint16(p, half(float32(v)))
	case evenweave.Bool:
		p[0] = byte(h >> 63)
	default:
		clear(p)
		p[0] = byte(1 + h>>61)
	}
}

// half converts a number that a float16 holds exactly as a normal one, or 0.
func half(v float32) uint16 {
	b := math.Float32bits(v)
	if b<<1 == 0 {
		return uint16(b >> 16)
	}
	return uint16(b>>16&0x8000) | uint16(b>>23&0xff-127+15)<<10 | uint16(b>>13&0x3ff)
}
