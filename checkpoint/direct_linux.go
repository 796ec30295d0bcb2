package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// setDirect makes writes to a file go past the kernel's cache, or through it again. false: this file system cannot.
func setDirect(f *os.File, direct bool) bool {
	raw, err := f.SyscallConn()
	if err != nil {
		return false
	}
	var failed error
	err = raw.Control(func(fd uintptr) {
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if flags &^= unix.O_DIRECT; direct {
			flags |= unix.O_DIRECT
		}
		if failed = err; err == nil {
			_, failed = unix.FcntlInt(fd, unix.F_SETFL, flags)
		}
	})
	return err == nil && failed == nil
}
