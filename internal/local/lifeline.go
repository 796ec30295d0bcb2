package local

import (
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"
)

// Lifeline ends this process when the parent that started it is gone. In a child of the supervisor asked is closed when
// the parent asks it to end in good order; in a process that was started by hand asked is nil, and nothing happens.
func Lifeline() (asked <-chan struct{}) {
	fd, err := strconv.Atoi(os.Getenv(LifelineVariable))
	if err != nil {
		return nil
	}
	_ = os.Unsetenv(LifelineVariable)
	go func() {
		var b [1]byte
		_, _ = os.NewFile(uintptr(fd), "lifeline").Read(b[:]) // the parent never writes: this returns when it ends
		os.Exit(137)
	}()
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_, _ = io.Copy(io.Discard, os.Stdin) // the parent closes it to ask; a worker has none, and is asked by SIGTERM
	}()
	return closed
}

// LeaveToParent has this process ignore the signals that ask a whole run to end: the parent answers them, and asks
// through [Lifeline]. A coordinator that took one for itself would resign, and etcd would go away: nothing could save
// the state.
func LeaveToParent() { signal.Ignore(os.Interrupt, syscall.SIGTERM, syscall.SIGHUP) }
