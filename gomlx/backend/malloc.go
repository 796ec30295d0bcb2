//go:build cgo && !noxla && linux && (amd64 || arm64)

package backend

// void return_freed_memory(void);
import "C"

// ReturnFreedMemory gives the pages that C code has freed back to the kernel. What is allocated next in them faults
// them in again, so it is for seldom: glibc cannot use a block that was freed for another one of its size, if that is
// to be aligned, as XLA's are, so the gaps between them grow over the first hundred steps.
func ReturnFreedMemory() { C.return_freed_memory() }
