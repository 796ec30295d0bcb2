package coordinator

import (
	"log/slog"
	"os"
	"strings"
	"testing"
	"testing/synctest"

	"evenweave/internal/example"
	"evenweave/internal/regular"
)

// Coordinators share a directory, which nothing else changes while one is there, and wait for what changes it.
func TestACoordinatorOccupiesItsDirectory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		open := func() (*Coordinator, error) {
			return openCoordinator(Config{Dir: dir, Model: example.NewSoftmax(), Log: slog.New(slog.DiscardHandler)},
				nil)
		}
		command, err := os.Open(dir)
		if err != nil {
			t.Fatal(err)
		}
		defer command.Close()
		if err := regular.Lock(command, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := open(); err == nil || !strings.Contains(err.Error(), "`checkpoint prune` for one") {
			t.Errorf("beside a command: %v", err)
		}
		if err := command.Close(); err != nil {
			t.Fatal(err)
		}
		leads, err := open()
		if err != nil {
			t.Fatal(err)
		}
		standsBy, err := open()
		if err != nil {
			t.Fatal(err)
		}
		if command, err = os.Open(dir); err != nil {
			t.Fatal(err)
		}
		for _, c := range []*Coordinator{leads, standsBy} {
			if err := regular.Lock(command, 0); err != regular.ErrLocked {
				t.Errorf("a command beside a coordinator: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := regular.Lock(command, 0); err != nil {
			t.Errorf("after the last coordinator: %v", err)
		}
	})
}
