//go:build cgo && !noxla && linux && (amd64 || arm64)

package backend

// void return_freed_memory(void);
import "C"

// ReturnFreedMemory gives the pages that C code has freed back to the kernel. Call it seldom: what is allocated there
// next faults the pages in again. It is needed because glibc often cannot use a freed block for another one of the same
// size that must be aligned, as XLA's are: the gaps between blocks grow over the first hundred steps.
func ReturnFreedMemory() { C.return_freed_memory() }
