package progress

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMetricsFollowNoLink: neither the file nor the one that takes its place is written through a link, and both are
// their user's alone.
func TestMetricsFollowNoLink(t *testing.T) {
	dir := t.TempDir()
	precious, path := filepath.Join(dir, "precious"), filepath.Join(dir, "metrics.jsonl")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, fmt.Sprintf("%s.%d.tmp", path, os.Getpid())} {
		if err := os.Symlink(precious, name); err != nil {
			t.Fatal(err)
		}
		m, err := OpenMetrics(t.Context(), path, ignore)
		if refused := err != nil; refused != (name == path) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			m.Observe(Record{time.Unix(0, 0), Step{Step: 1}})
			if err := m.Close(); err != nil {
				t.Error(err)
			}
			if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
				t.Errorf("mode %s, %v", info.Mode(), err)
			}
		}
		_ = os.Remove(name)
		if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
			t.Fatalf("%s: the file behind the link holds %q, %v", name, b, err)
		}
	}
}
