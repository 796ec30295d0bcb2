package dataset_test

import (
	"fmt"
	"log"

	"evenweave/dataset"
)

// One sample in ten is held out of sorted data, and the rest is loaded while the step before computes.
func ExampleSplit() {
	var points []float32
	for i := range 100 {
		points = append(points, float32(i))
	}
	data, err := dataset.InMemory([]dataset.Flat{dataset.Of(points, 1)}, nil)
	if err != nil {
		log.Fatal(err)
	}
	train, heldOut, err := dataset.Split(dataset.Shuffle(data, 1), 10)
	if err != nil {
		log.Fatal(err)
	}
	train = dataset.Prefetched(train, 8)
	fmt.Println(train.Len(), heldOut.Len())
	// Output: 90 10
}
