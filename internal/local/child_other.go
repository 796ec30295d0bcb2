//go:build !linux

package local

import "syscall"

// childAttributes puts a child into a process group of its own, so that a Ctrl-C reaches only the parent.
func childAttributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }
