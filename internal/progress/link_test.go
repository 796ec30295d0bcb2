package progress

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestMetricsFollowNoLink: the file is not written through a link, and it is its user's alone.
func TestMetricsFollowNoLink(t *testing.T) {
	dir := t.TempDir()
	precious, path := filepath.Join(dir, "precious"), filepath.Join(dir, "metrics.jsonl")
	if err := os.WriteFile(precious, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(precious, path); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenMetrics(t.Context(), path, ignore); err == nil {
		t.Error("a link was opened")
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	m, err := OpenMetrics(t.Context(), path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	m.Observe(Record{time.Unix(0, 0), Step{Step: 1}})
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("mode %s, %v", info.Mode(), err)
	}
	if b, err := os.ReadFile(precious); err != nil || string(b) != "precious" {
		t.Errorf("the file behind the link holds %q, %v", b, err)
	}
}
