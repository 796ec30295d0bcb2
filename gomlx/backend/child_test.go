package backend

import (
	"os"
	"os/exec"
	"testing"
)

// inChild runs this test in a process of its own whose environment has one more setting, "NAME=value".
func inChild(t *testing.T, setting string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
	cmd.Env = append(os.Environ(), setting)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("with %s: %v\n%s", setting, err, out)
	}
}
