package local

import (
	"os"
	"strconv"
)

// Lifeline ends this process when the parent that started it is gone; nothing happens in a process that was started by hand.
func Lifeline() {
	fd, err := strconv.Atoi(os.Getenv(LifelineVariable))
	if err != nil {
		return
	}
	_ = os.Unsetenv(LifelineVariable)
	go func() {
		var b [1]byte
		_, _ = os.NewFile(uintptr(fd), "lifeline").Read(b[:]) // the parent never writes: this returns when it ends
		os.Exit(137)
	}()
}
