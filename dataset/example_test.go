package dataset_test

import (
	"fmt"
	"log"

	"evenweave"
	"evenweave/dataset"
)

// Three points of a plane, with their classes.
func ExampleInMemory() {
	points := []float32{0, 0, 1, 0, 1, 1}
	classes := []int32{0, 1, 1}
	data, err := dataset.InMemory([]dataset.Flat{dataset.Of(points, 2)}, []dataset.Flat{dataset.Of(classes, 1)})
	if err != nil {
		log.Fatal(err)
	}
	batch := evenweave.Batch{Samples: []int32{2, 0, evenweave.Padding}}
	if err := data.Load(&batch); err != nil {
		log.Fatal(err)
	}
	content := batch.Content.(*dataset.Content)
	fmt.Println(data.Len(), content.Inputs[0].Type, content.Inputs[0].Shape, content.Labels[0].Bytes, content.Weights)
	// Output: 3 float32 [2] [1 0 0 0 0 0 0 0 0 0 0 0] [1 1 0]
}
