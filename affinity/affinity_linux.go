package affinity

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"

	"golang.org/x/sys/unix"
)

// Available returns the processors that this process may use, in ascending order.
func Available() []int {
	var set unix.CPUSet
	if unix.SchedGetaffinity(0, &set) != nil {
		return nil
	}
	var all []int
	for cpu := 0; len(all) < set.Count(); cpu++ {
		if set.IsSet(cpu) {
			all = append(all, cpu)
		}
	}
	return all
}

func setOf(processors []int) *unix.CPUSet {
	var set unix.CPUSet
	for _, cpu := range processors {
		set.Set(cpu)
	}
	return &set
}

// Start starts a process that may use these processors only; none: all that this one may use.
func Start(cmd *exec.Cmd, processors []int) error {
	if len(processors) == 0 {
		return cmd.Start()
	}
	runtime.LockOSThread() // a child inherits from the thread that starts it
	defer runtime.UnlockOSThread()
	ours := setOf(Available())
	if err := unix.SchedSetaffinity(0, setOf(processors)); err != nil {
		return fmt.Errorf("giving a process processors %v: %w", processors, err)
	}
	defer unix.SchedSetaffinity(0, ours)
	return cmd.Start()
}

// Bind moves a running process, with all its threads, to these processors. A process that has ended is none of its business.
func Bind(pid int, processors []int) error {
	if len(processors) == 0 {
		return nil
	}
	set, moved := setOf(processors), map[int]bool{}
	for again := true; again; { // a thread not moved yet may have started another
		again = false
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("moving process %d: %w", pid, err)
		}
		for _, entry := range threads {
			id, err := strconv.Atoi(entry.Name())
			if err != nil || moved[id] {
				continue
			}
			if err := unix.SchedSetaffinity(id, set); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("moving thread %d of process %d to processors %v: %w", id, pid, processors, err)
			}
			moved[id], again = true, true
		}
	}
	return nil
}
