//go:build !(amd64 && goexperiment.simd)

package exact

// Without vector instructions the plain code does everything.

func addQuanta(dst []int64, grad []float32) int { return 0 }

func largestOf(grad []float32) (largest uint32, done int) { return 0, 0 }
