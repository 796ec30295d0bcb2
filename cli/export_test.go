package cli

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/checkpoint"
)

// The weights of any task are exported, in the order and with the bits of the checkpoint; deploy/interoptest reads them
// with Python.
func TestExportTensors(t *testing.T) {
	dir, paths := savedRun(t, 5, 10)
	c, err := checkpoint.Load(t.Context(), paths[1])
	if err != nil {
		t.Fatal(err)
	}
	out, _ := ends(t, exitDone, "export", "--dir", dir)
	path := filepath.Join(dir, "model.safetensors")
	if out != path+"\n" {
		t.Errorf("%s", out)
	}
	weights, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(weights)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(weights[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(header["__metadata__"]), `"step":"10"`) ||
		!bytes.HasPrefix(weights[8+n:], c.State.Tensor(0)) {
		t.Errorf("%s", weights[:8+n])
	}
	other := filepath.Join(t.TempDir(), "out")
	out, _ = ends(t, exitDone, "export", "--checkpoint", paths[0], "--all", "--out", other, "-o", "json")
	if !strings.Contains(out, `"event":"export"`) || !strings.Contains(out, `"step":5`) {
		t.Errorf("%s", out)
	}
	if left, err := os.ReadDir(filepath.Dir(other)); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestExportRefuses(t *testing.T) {
	dir, paths := savedRun(t, 5)
	_, why := ends(t, exitUsage, "export", "--dir", dir, "--format", "onnx")
	if !strings.Contains(why, `task "tiny" has safetensors`) {
		t.Error(why)
	}
	ends(t, exitUsage, "export", "--dir", dir, "--format", "../x")
	ends(t, exitUsage, "export", "--dir", dir, "--format", "onnx", "--all")
	out := filepath.Join(dir, "precious")
	if err := os.WriteFile(out, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	flip(t, paths[0], 41)
	_, why = ends(t, exitFailed, "export", "--checkpoint", paths[0], "--out", out)
	if b, err := os.ReadFile(out); string(b) != "precious" || !strings.Contains(why, paths[0]) {
		t.Errorf("%q, %v: %s", b, err, why)
	}
}
