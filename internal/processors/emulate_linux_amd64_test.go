package processors

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/cpu"
)

const beEmulated = "EVENWEAVE_TEST_BINARY_IS_EMULATED"

// TestEmulate: another processor answers CPUID in a process of its own; what a machine lacks is said.
func TestEmulate(t *testing.T) {
	if os.Getenv(beEmulated) != "" {
		if err := CheckEmulated(); err != nil {
			t.Fatal(err)
		}
		t.Logf("vectors of 512 bits: %v", cpu.X86.HasAVX512F)
		return
	}
	if _, err := Emulate(t.Context(), "zx80", t.TempDir()); err == nil || !strings.Contains(err.Error(), "zen3") {
		t.Errorf("an unknown processor: %v", err)
	}
	variables, err := Emulate(t.Context(), "zen3", t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestEmulate$", "-test.v")
	cmd.Env = append(append(os.Environ(), variables...), beEmulated+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil && bytes.Contains(out, []byte("linked dynamically")) {
		t.Skip("this test is linked statically, and says so")
	}
	if err != nil || !bytes.Contains(out, []byte("vectors of 512 bits: false")) {
		t.Errorf("%v\n%s", err, out)
	}
	t.Setenv("EVENWEAVE_CPUID", "amd")
	if err := CheckEmulated(); err == nil {
		t.Error("this process emulates nothing, and says that it does")
	}
}
