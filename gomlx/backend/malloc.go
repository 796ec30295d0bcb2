//go:build cgo && !noxla && linux && (amd64 || arm64)

package backend

import "C" // compiles malloc.c
