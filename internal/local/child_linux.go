package local

import "syscall"

// childAttributes puts a child into a process group of its own, so that a Ctrl-C reaches only the parent, and has the
// kernel end it with the parent's thread, even when the child is stopped.
func childAttributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
