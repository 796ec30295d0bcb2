package processors

import (
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/cpu"
)

// Kind says which processor this is, and its widest vectors, such as "AMD EPYC, AVX-512". Which of them
// give the same bits: docs/exactness.md.
func Kind() string {
	model, vectors := runtime.GOARCH, "no AVX2"
	raw, _ := os.ReadFile("/proc/cpuinfo") // Linux
	for line := range strings.Lines(string(raw)) {
		if key, value, _ := strings.Cut(line, ":"); strings.TrimSpace(key) == "model name" {
			model = strings.TrimSpace(value)
			break
		}
	}
	switch {
	case cpu.X86.HasAVX512F:
		vectors = "AVX-512"
	case cpu.X86.HasAVX2:
		vectors = "AVX2"
	}
	if runtime.GOARCH != "amd64" {
		return model
	}
	return model + ", " + vectors
}

// FMA reports whether this is an x86-64 processor with FMA and AVX2: one of the class that trains with equal bits.
func FMA() bool { return cpu.X86.HasFMA && cpu.X86.HasAVX2 }
