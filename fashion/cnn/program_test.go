package cnn

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"

	"evenweave/internal/processors"
)

// TestProgramsAreForOneProcessor reads how XLA compiled them: on a machine of many processors it would split operations
// among those that it sees.
func TestProgramsAreForOneProcessor(t *testing.T) {
	if len(processors.Available()) < 2 {
		t.Skip("needs two processors")
	}
	const child = "EVENWEAVE_TEST_COMPILE"
	if os.Getenv(child) != "" {
		m := open(t, Options{Backend: "xla", MicroBatch: 4})
		if err := m.Logits(make([]byte, pixels), make([]float32, classes)); err != nil {
			t.Fatal(err)
		}
		return
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v") // XLA reads its flags once a process
	cmd.Env = append(os.Environ(), child+"=1", "XLA_FLAGS=--xla_dump_hlo_as_text --xla_dump_to="+dir)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if regexp.MustCompile(`(?m)^\s*--- SKIP`).Match(out) {
		t.Skipf("%s", out)
	}
	split := regexp.MustCompile(`.*"outer_dimension_partitions":\["\d+".*`)
	for _, name := range []string{"gradients", "update", "logits"} {
		files, err := filepath.Glob(filepath.Join(dir, "*."+name+".cpu_after_optimizations.txt"))
		if err != nil || len(files) != 1 {
			t.Fatalf("%s: program files %v, %v", name, files, err)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if found := split.FindAll(text, -1); len(found) > 0 {
			t.Errorf("%s has %d operations in parts, first:\n%s", name, len(found), found[0])
		}
	}
}
