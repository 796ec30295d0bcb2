package bench

import (
	"fmt"
	"os/exec"
	"runtime"

	"golang.org/x/sys/unix"
)

// startPinned starts a process on one of the processors that this one may use, in turn. Left alone, the kernel tends to move both ends of a loopback connection to the same one.
func startPinned(cmd *exec.Cmd, rank int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var ours, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &ours); err != nil {
		return fmt.Errorf("reading this process's processors: %w", err)
	}
	turn := rank % ours.Count()
	for cpu := 0; ; cpu++ {
		if !ours.IsSet(cpu) {
			continue
		}
		if turn == 0 {
			one.Set(cpu)
			break
		}
		turn--
	}
	if err := unix.SchedSetaffinity(0, &one); err != nil { // A child inherits it from the thread that starts it.
		return fmt.Errorf("pinning rank %d: %w", rank, err)
	}
	defer unix.SchedSetaffinity(0, &ours)
	return cmd.Start()
}
