package cnn

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math"

	"evenweave"
)

// numerics is the hash of Gradients and Update on fixed inputs and a fixed state, as testdata/numerics.json has it of
// many processors: of the model alone, where the trainer's golden probe (package probe) has the data in it too.
func (m *Model) numerics() (string, error) {
	n := m.options.MicroBatch
	random := evenweave.NewGenerator(0)
	b := &evenweave.Batch{Key: random.Uint64()}
	c := &Content{Images: make([]byte, n*pixels), Labels: make([]uint8, n), Weights: make([]float32, n)}
	for i := range c.Images {
		c.Images[i] = byte(random.Uint64())
	}
	for i := range n {
		c.Labels[i], c.Weights[i] = uint8(i%classes), 1
	}
	b.Content = c
	if err := m.Init(1); err != nil {
		return "", err
	}
	grad := make([]float32, numParameters(classes))
	sums, err := m.Gradients(b, m.split(grad))
	if err != nil {
		return "", err
	}
	after := make([]float32, len(m.state))
	// where the rate is high enough to show
	if err := m.step(after, m.state, grad, m.options.TotalSteps/2); err != nil {
		return "", err
	}
	return hashFloats([]float32{float32(sums.Loss)}, grad, after), nil
}

func hashFloats(parts ...[]float32) string {
	h := sha256.New()
	var buf []byte
	for _, part := range parts {
		buf = buf[:0]
		for _, v := range part {
			buf = binary.LittleEndian.AppendUint32(buf, math.Float32bits(v))
		}
		h.Write(buf)
	}
	return hex.EncodeToString(h.Sum(nil))
}
