//go:build !(amd64 && goexperiment.simd)

package exact

// Without vector instructions everything is left to the plain code.

func addQuanta(dst []int64, grad []float32) int { return 0 }

func largestOf(grad []float32) (largest uint32, done int) { return 0, 0 }
