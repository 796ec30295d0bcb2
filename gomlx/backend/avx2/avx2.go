// Package avx2 keeps GoMLX's "go" backend to AVX2 where a processor has AVX-512 too: its products add up their terms in
// lanes of the vector's width, so that the two give other bits. A package that imports GoMLX imports it for this
// effect.
//
// GoMLX reads the variable once, while packages are initialised. Of the packages that are ready Go initialises the one
// first in the alphabet. This one is ready as soon as syscall is, and GoMLX's not before os: so this comes first.
package avx2

import "syscall"

// Variable is GoMLX's. A user's value is left as it is.
const Variable = "GOMLX_SIMD_AVX512"

func init() {
	if _, set := syscall.Getenv(Variable); !set {
		_ = syscall.Setenv(Variable, "false") // fails for malformed names only
	}
}
