package progress

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A learning curve that is no regular file, or is too large, gives an error at once.
func TestHostileMetricsAreRefused(t *testing.T) {
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	// one line, of zeros that take no room on the disk
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{large, dir, fifo, "/dev/zero"} {
		if _, err := ReadMetrics(path, ignore); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
		m, err := OpenMetrics(t.Context(), path, ignore)
		if err == nil {
			_ = m.Close()
		}
		if err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s, to go on with it: %v", path, err)
		}
	}
}
