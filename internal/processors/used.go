package processors

import (
	"runtime"
	"syscall"
	"time"
)

// Used is the processor time of this process so far, and the most bytes of memory that it has held; zeros where the
// system does not say.
func Used() (cpu time.Duration, memory int64) {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0, 0
	}
	memory = int64(u.Maxrss)
	if runtime.GOOS == "linux" { // in KiB; elsewhere in bytes
		memory <<= 10
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano()), memory
}
