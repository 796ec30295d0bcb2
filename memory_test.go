package evenweave_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"evenweave"
)

// numbers is data whose sample i is the number i.
type numbers struct{ n int }

func (d numbers) Len() int       { return d.n }
func (d numbers) Digest() string { return "numbers" }

func (d numbers) Load(b *evenweave.Batch) error {
	b.Content = append([]int32(nil), b.Samples...)
	return nil
}

// counted is a model whose metrics are the samples that it was given and the even ones among them.
type counted struct {
	*evenweave.Memory
	metrics, batches int
	err              error
}

func newCounted() *counted {
	return &counted{metrics: 2, Memory: evenweave.NewMemory(
		evenweave.Tensor{Name: "a", Type: evenweave.Int64, Shape: []int{2, 3}, Role: evenweave.Trained},
		evenweave.Tensor{Name: "b", Role: evenweave.Averaged},
		evenweave.Tensor{Name: "c", Shape: []int{5}, Role: evenweave.Kept})}
}

func (m *counted) Init(uint64) error               { return nil }
func (m *counted) Update([][]float32, int64) error { return nil }
func (m *counted) Gradients(b *evenweave.Batch, grads [][]float32) (s evenweave.Sums, err error) {
	m.batches++
	if len(grads) != 2 || len(grads[0]) != 6 || len(grads[1]) != 1 || len(b.Samples) != 4 {
		return s, errors.New("gradients of other tensors, or another batch")
	}
	s.Metrics = make([]int64, m.metrics)
	for _, sample := range b.Content.([]int32) {
		if sample == evenweave.Padding {
			continue
		}
		s.Weight++
		s.Loss += float64(sample)
		s.Metrics[0]++
		s.Metrics[1] += int64(1 - sample%2)
	}
	return s, m.err
}

// A state in memory is laid out as its tensors say, all of them float32, and is read and written at any offset.
func TestMemory(t *testing.T) {
	m := newCounted()
	for i, want := range []struct {
		elements int
		role     evenweave.Role
	}{{6, evenweave.Trained}, {1, evenweave.Averaged}, {5, evenweave.Kept}} {
		tensor := m.Tensors()[i]
		if tensor.Type != evenweave.Float32 || tensor.Role != want.role || len(m.Values[i]) != want.elements {
			t.Errorf("tensor %d: %+v with %d values", i, tensor, len(m.Values[i]))
		}
	}
	m.Values[2][1] = 1 // 0x3f800000
	var got [4]byte
	if err := m.Read(2, 4, got[:]); err != nil || got != [4]byte{0, 0, 0x80, 0x3f} {
		t.Errorf("%x, %v", got, err)
	}
	if err := m.Write(0, 20, []byte{0, 0, 0, 0x40}); err != nil || m.Values[0][5] != 2 {
		t.Errorf("%v, %v", m.Values[0], err)
	}
	if m.Read(1, 2, got[:]) == nil || m.Write(1, 8, got[:]) == nil {
		t.Error("bytes beyond a tensor's end are read or written")
	}
}

// Every sample counts once, whatever the batch; padding counts nothing. What has no mean is an error.
func TestMeans(t *testing.T) {
	m := newCounted()
	figures, err := evenweave.Means(t.Context(), m, numbers{11}, 4, "all", "even")
	want := []evenweave.Figure{{Name: "all", Value: 1, Better: evenweave.Higher},
		{Name: "even", Value: 6. / 11, Better: evenweave.Higher}, {Name: "loss", Value: 5, Better: evenweave.Lower}}
	if err != nil || len(figures) != 3 || figures[0] != want[0] || figures[1] != want[1] || figures[2] != want[2] {
		t.Errorf("%+v, %v", figures, err)
	}
	if m.batches != 3 {
		t.Errorf("%d batches", m.batches)
	}
	if _, err := evenweave.Means(t.Context(), m, numbers{11}, 4, "all"); err == nil ||
		!strings.Contains(err.Error(), "2 metrics, 1 are named") {
		t.Errorf("a metric without a name: %v", err)
	}
	if _, err := evenweave.Means(t.Context(), m, numbers{11}, 0, "all", "even"); err == nil ||
		!strings.Contains(err.Error(), "at least 1") {
		t.Errorf("batches of no sample: %v", err)
	}
	if _, err := evenweave.Means(t.Context(), m, numbers{0}, 4, "all", "even"); err == nil ||
		!strings.Contains(err.Error(), "no mean") {
		t.Errorf("no samples: %v", err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	stop := errors.New("stop")
	cancel(stop)
	if _, err := evenweave.Means(ctx, m, numbers{11}, 4, "all", "even"); !errors.Is(err, stop) {
		t.Errorf("an evaluation that was ended: %v", err)
	}
	m.err = errors.New("broken")
	if _, err := evenweave.Means(t.Context(), m, numbers{11}, 4, "all", "even"); !errors.Is(err, m.err) {
		t.Errorf("a model that fails: %v", err)
	}
}
