//go:build !(amd64 && goexperiment.simd)

package exact

// Without vector instructions the plain code does everything.

func addVectors(dst []int64, grad []float32, scale float32) (done int, top uint32) { return 0, 0 }

func meanVectors(dst []float32, sum []int64, divisor float64) (done int) { return 0 }
