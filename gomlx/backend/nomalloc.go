//go:build !(cgo && !noxla && linux && (amd64 || arm64))

package backend

// ReturnFreedMemory does nothing where the program does not keep what C code frees (malloc.c).
func ReturnFreedMemory() {}
