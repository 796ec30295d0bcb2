//go:build !linux

package bench

import (
	"errors"
	"os/exec"
)

func startPinned(*exec.Cmd, int) error {
	return errors.New("members can be pinned to processors on Linux only: leave it out")
}
