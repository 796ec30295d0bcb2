//go:build !linux

package processors

import "os/exec"

// Available returns nothing: processes cannot be given processors here.
func Available() []int { return nil }

// Start starts a process.
func Start(cmd *exec.Cmd, _ []int) error { return cmd.Start() }

// OnOne calls do.
func OnOne(do func() error) error { return do() }

// Batch does nothing.
func Batch() error { return nil }

// Bind does nothing.
func Bind(int, []int) error { return nil }
