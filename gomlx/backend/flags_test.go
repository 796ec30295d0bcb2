package backend

import (
	"os"
	"testing"
)

// TestXLAFlags: a GPU's kernels are not chosen by measuring them, unless the user says so.
func TestXLAFlags(t *testing.T) {
	if !xlaBuilt {
		t.Skip("this build has no XLA")
	}
	const mine = "--xla_gpu_deterministic_ops=false"
	for users, want := range map[string]string{
		"":                   deterministic,
		mine:                 deterministic + " " + mine, // the last one counts
		"  " + deterministic: "  " + deterministic,
	} {
		t.Setenv("XLA_FLAGS", users)
		if b, _, err := openXLA("cuda"); err == nil { // where there is a GPU
			b.Finalize()
		}
		if got := os.Getenv("XLA_FLAGS"); got != want {
			t.Errorf("with XLA_FLAGS=%q it was opened with %q, want %q", users, got, want)
		}
	}
}
