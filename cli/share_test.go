package cli

import (
	"runtime"
	"testing"
)

// TestShareOfTheProcessorsGiven: GOMAXPROCS, or a container's limit, not the machine's processors.
func TestShareOfTheProcessorsGiven(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(6 * runtime.NumCPU()))
	for workers, want := range map[int]int{1: 6 * runtime.NumCPU(), 3: 2 * runtime.NumCPU(), 6 * runtime.NumCPU(): 1,
		7 * runtime.NumCPU(): 1} {
		if got := share(workers); got != want {
			t.Errorf("%d workers: %d micro-batches each side by side, expected %d", workers, got, want)
		}
	}
}

// TestNoFaultsInACluster: a worker that is no child of a command takes no faults, whatever its environment says.
func TestNoFaultsInACluster(t *testing.T) {
	t.Setenv("EVENWEAVE_FAULTS", "1")
	if takesFaults(false) || !takesFaults(true) {
		t.Error("faults were taken in a cluster, or not by a child of chaos")
	}
	t.Setenv("EVENWEAVE_FAULTS", "")
	if takesFaults(true) {
		t.Error("faults were taken by a child of train")
	}
}
