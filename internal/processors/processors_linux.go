package processors

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"unsafe"

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

// Start starts a process that may use these processors only. None means all that this process may use.
func Start(cmd *exec.Cmd, processors []int) error {
	if len(processors) == 0 {
		return cmd.Start()
	}
	release, err := limit(processors) // a child inherits this from the thread that starts it
	if err != nil {
		return fmt.Errorf("giving a process processors %v: %w", processors, err)
	}
	defer release()
	return cmd.Start()
}

// OnOne calls do on a thread that may use only the processor that it runs on. Threads that do starts inherit this. If
// the kernel forbids it, do may use all processors, and is only slower.
func OnOne(do func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var here uint32
	if _, _, errno := unix.RawSyscall(unix.SYS_GETCPU, uintptr(unsafe.Pointer(&here)), 0, 0); errno == 0 {
		if release, err := limit([]int{int(here)}); err == nil {
			defer release()
		}
	}
	return do()
}

// limit locks the calling goroutine to its thread and the thread to these processors, until release.
func limit(processors []int) (release func(), err error) {
	runtime.LockOSThread()
	var before unix.CPUSet
	if err = unix.SchedGetaffinity(0, &before); err == nil {
		err = unix.SchedSetaffinity(0, setOf(processors))
	}
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	return func() {
		_ = unix.SchedSetaffinity(0, &before)
		runtime.UnlockOSThread()
	}, nil
}

// Batch makes all threads of this process, and of processes that it starts later, wait for their turn when they wake up
// (SCHED_BATCH). Their share of the processors stays the same. It needs no privilege. Call it once, at the start.
func Batch() error {
	return eachThread(os.Getpid(), func(id int) error {
		attributes, err := unix.SchedGetAttr(id, 0)
		if err == nil {
			attributes.Policy = unix.SCHED_BATCH
			err = unix.SchedSetAttr(id, attributes, 0)
		}
		return err
	})
}

// Bind moves a running process, with all its threads, to these processors. If the process has ended, it does nothing.
func Bind(pid int, processors []int) error {
	if len(processors) == 0 {
		return nil
	}
	set := setOf(processors)
	return eachThread(pid, func(id int) error { return unix.SchedSetaffinity(id, set) })
}

// eachThread calls do for each thread of a process, including threads that start meanwhile.
func eachThread(pid int, do func(id int) error) error {
	done := map[int]bool{}
	for again := true; again; {
		again = false
		threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("threads of process %d: %w", pid, err)
		}
		for _, entry := range threads {
			id, err := strconv.Atoi(entry.Name())
			if err != nil || done[id] {
				continue
			}
			if err := do(id); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("thread %d of process %d: %w", id, pid, err)
			}
			done[id], again = true, true
		}
	}
	return nil
}
