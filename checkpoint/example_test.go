package checkpoint_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// Any Go program can read the weights of a checkpoint by the name of a tensor.
func Example() {
	ctx := context.Background()
	dir, err := os.MkdirTemp("", "checkpoints")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path, err := train(ctx, dir)
	if err != nil {
		log.Fatal(err)
	}

	c, err := checkpoint.Load(ctx, path) // verified to the last byte
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range c.Tensors {
		values, err := c.Float32s(t.Name)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(t.Name, t.Shape, values)
	}
	// Output:
	// dense/kernel [2 2] [1 2 3 4]
	// dense/bias [2] [5 6]
}

// train stands for a training run that saved a checkpoint.
func train(ctx context.Context, dir string) (path string, err error) {
	layout, err := state.NewLayout([]evenweave.Tensor{
		{Name: "dense/kernel", Type: evenweave.Float32, Shape: []int{2, 2}, Role: evenweave.Trained},
		{Name: "dense/bias", Type: evenweave.Float32, Shape: []int{2}, Role: evenweave.Trained},
	})
	if err != nil {
		return "", err
	}
	s := state.New(layout, 60000)
	s.Step = 469
	for i := range 6 {
		_, err := binary.Encode(s.Image[4*i:], binary.LittleEndian, float32(i+1))
		if err != nil {
			return "", err
		}
	}
	return checkpointtest.Save(ctx, dir, checkpoint.Manifest{}, s)
}
