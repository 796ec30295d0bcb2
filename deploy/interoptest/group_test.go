package interoptest

import (
	"os/exec"
	"syscall"
)

// bounded gives a command a process group, with which end ends what it started, too.
func bounded(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

func end(cmd *exec.Cmd) {
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	_ = cmd.Wait()
}
