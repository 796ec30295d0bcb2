package interoptest

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// Every type that a state may have comes back from Python's safetensors with equal bits, NaNs among them.
func TestSafetensors(t *testing.T) {
	python(t)
	s := mixed(t)
	dir := t.TempDir()
	saved, err := checkpointtest.Save(t.Context(), filepath.Join(dir, "checkpoints"),
		checkpoint.Manifest{Task: "mixed"}, s)
	if err != nil {
		t.Fatal(err)
	}
	m, _, err := checkpoint.Peek(saved)
	if err != nil {
		t.Fatal(err)
	}
	for _, all := range []bool{false, true} {
		args := []string{"export", "--dir", dir, "--format", "safetensors"}
		if all {
			args = append(args, "--all")
		}
		path := strings.TrimSpace(run(t, args...))
		checkTensors(t, reads(t, "read_safetensors.py", path), s, m.WeightsSHA256, all)
	}
}

// mixed is a state of step 7 with tensors of every type, half of them kept, of random bits.
func mixed(t *testing.T) *state.State {
	t.Helper()
	kinds := []evenweave.DType{evenweave.Float32, evenweave.Bool, evenweave.Float64, evenweave.BFloat16,
		evenweave.Uint8, evenweave.Float16, evenweave.Int32, evenweave.Int64, evenweave.Uint32, evenweave.Uint64}
	var tensors []evenweave.Tensor
	for i, kind := range kinds {
		role := evenweave.Trained
		if i > 4 {
			role = evenweave.Kept
		}
		tensors = append(tensors, evenweave.Tensor{Name: "a/" + string(kind), Type: kind, Shape: []int{3, i + 1},
			Role: role})
	}
	tensors = append(tensors, evenweave.Tensor{Name: "scalar", Type: evenweave.Int64, Role: evenweave.Kept})
	layout, err := state.NewLayout(tensors)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(layout, 10)
	s.Step = 7
	r := rand.New(rand.NewPCG(1, 2))
	for i, tensor := range tensors {
		for j := range s.Tensor(i) {
			s.Tensor(i)[j] = byte(r.Uint32())
			if tensor.Type == evenweave.Bool {
				s.Tensor(i)[j] &= 1
			}
		}
	}
	return s
}

// checkTensors compares what Python has read with a state.
func checkTensors(t *testing.T, out string, s *state.State, weights string, all bool) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(out), "\n")
	if lines[0] != `{"metadata": {"step": "7", "task": "mixed", "weights_sha256": "`+weights+`"}}` {
		t.Errorf("%s", lines[0])
	}
	want := 0
	for _, tensor := range s.Layout.Tensors {
		if all || tensor.Role != evenweave.Kept {
			want++
		}
	}
	if len(lines)-1 != want {
		t.Errorf("%d tensors, want %d", len(lines)-1, want)
	}
	for _, line := range lines[1:] {
		var got struct {
			Name, Type, Bytes string
			Shape             []int
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatal(err)
		}
		i := s.Layout.Index(got.Name)
		if i < 0 {
			t.Fatalf("a tensor %q", got.Name)
		}
		want := s.Layout.Tensors[i]
		if got.Type != string(want.Type) || !slices.Equal(got.Shape, want.Shape) ||
			got.Bytes != hex.EncodeToString(s.Tensor(i)) || !all && want.Role == evenweave.Kept {
			t.Errorf("%s, want %+v with %x", line, want, s.Tensor(i))
		}
		t.Log(got.Name, got.Type, got.Shape)
	}
}
