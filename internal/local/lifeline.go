package local

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// Lifeline ends this process when its parent, the supervisor, has ended. asked is closed when the parent asks this
// process to end in good order. In a process without such a parent asked is nil, and nothing happens.
func Lifeline() (asked <-chan struct{}) {
	fd, err := strconv.Atoi(os.Getenv(lifelineVariable))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(lifelineVariable)
	go func() {
		var b [1]byte
		// the parent never writes, so Read returns when the parent ends
		_, _ = os.NewFile(uintptr(fd), "lifeline").Read(b[:])
		os.Exit(137)
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it to ask; a worker has none, SIGTERM asks it
	}()
	return closed
}

// LeaveToParent makes this process ignore the signals that ask a whole run to end. The parent handles them, and asks
// its children through [Lifeline] in the right order: if etcd ended first, the coordinator could not save the state.
func LeaveToParent() { signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) }
