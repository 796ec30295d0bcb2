package local_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"evenweave/internal/local"
)

// TestARunThatIsOverIsSaidToBe: also where another process has the pid of its record, and after it has taken its record
// away.
func TestARunThatIsOverIsSaidToBe(t *testing.T) {
	dir := t.TempDir()
	if _, err := local.Find(dir); err == nil || !strings.Contains(err.Error(), "no run is recorded") ||
		local.Over(dir) != nil {
		t.Errorf("an empty directory: %v, %v", err, local.Over(dir))
	}
	lock, err := os.Create(filepath.Join(dir, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	record, _ := json.Marshal(local.Record{PID: os.Getpid(), Etcd: "http://127.0.0.1:1", Job: "evenweave"})
	if err := os.WriteFile(filepath.Join(dir, "run.json"), record, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Find(dir); err != nil || local.Over(dir) != nil {
		t.Errorf("a live run: %v, %v", err, local.Over(dir))
	}
	if err := os.Rename(filepath.Join(dir, "run.json"), filepath.Join(dir, "later")); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Find(dir); err == nil || !strings.Contains(err.Error(), "try again") {
		t.Errorf("a run that has not recorded itself yet: %v", err)
	}
	if err := os.Rename(filepath.Join(dir, "later"), filepath.Join(dir, "run.json")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	isOver := func(err error) bool { return err != nil && strings.Contains(err.Error(), "is over") }
	if err := local.Over(dir); !isOver(err) {
		t.Errorf("a run that was killed: %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "run.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := local.Find(dir); !isOver(err) {
		t.Errorf("a run that has ended: %v", err)
	}
}
