//go:build !goexperiment.simd

package cnn

const simdBuilt = false
