//go:build !(linux && amd64)

package processors

import (
	"context"
	"errors"
)

// Emulate is for Linux on x86-64.
func Emulate(context.Context, string, string) ([]string, error) {
	return nil, errors.New("another processor can be emulated on Linux on x86-64 only")
}

// Qemu is for Linux on x86-64.
func Qemu(string) ([]string, error) {
	return nil, errors.New("qemu-x86_64 runs programs for Linux on x86-64 only")
}

// CheckEmulated does nothing.
func CheckEmulated() error { return nil }
