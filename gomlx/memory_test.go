package gomlx

import (
	"bytes"
	"testing"

	"github.com/gomlx/gomlx/ml/train/optimizer"

	"evenweave"
)

// TestAModelForItsLayoutHoldsNoState: a coordinator that evaluates nothing asks for tensors and layers alone. What is
// read before it is written is zero, as in a model for training.
func TestAModelForItsLayoutHoldsNoState(t *testing.T) {
	for _, backend := range []string{"go", "xla"} {
		t.Run(backend, func(t *testing.T) {
			setup := evenweave.Setup{Backend: backend, MicroBatch: samples, TotalSteps: 10, EvaluateOnly: true}
			m := open(t, setup, network{}.config(optimizer.Adam().Done(), nil))
			if len(m.Tensors()) < 3 || len(m.Layers()) == 0 {
				t.Errorf("%d tensors, %d layers", len(m.Tensors()), len(m.Layers()))
			}
			for _, held := range m.state {
				if held.flat != nil || held.buffer != nil {
					t.Errorf("%s has memory before it is used", held.Name)
				}
			}
			p, zeros := make([]byte, m.state[1].Bytes()), make([]byte, m.state[1].Bytes())
			p[0] = 1
			if err := m.Read(1, 0, p); err != nil || !bytes.Equal(p, zeros) {
				t.Errorf("read %x, %v", p, err)
			}
			p[1] = 2
			if err := m.Write(1, 0, p); err != nil {
				t.Fatal(err)
			}
			if err := m.Read(1, 0, zeros); err != nil || !bytes.Equal(p, zeros) || m.state[0].flat != nil {
				t.Errorf("read %x after %x was written, %v", zeros, p, err)
			}
		})
	}
}
