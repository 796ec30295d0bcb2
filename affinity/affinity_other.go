//go:build !linux

package affinity

import "os/exec"

// Available returns nothing: processes cannot be given processors here.
func Available() []int { return nil }

// Start starts a process.
func Start(cmd *exec.Cmd, _ []int) error { return cmd.Start() }

// Bind does nothing.
func Bind(int, []int) error { return nil }
