package checkpoint_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"os"

	"evenweave/checkpoint"
	"evenweave/internal/schedule"
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

	manifest, payload, err := checkpoint.Read(ctx, path) // verified to the last byte
	if err != nil {
		log.Fatal(err)
	}
	defer payload.Close()
	trained, err := state.Read(payload, 1<<30)
	if err != nil {
		log.Fatal(err)
	}
	for _, t := range manifest.Tensors {
		fmt.Println(t.Name, t.Shape, trained.Values[t.Offset:t.Offset+t.Size()])
	}
	// Output:
	// dense/kernel [2 2] [1 2 3 4]
	// dense/bias [2] [5 6]
}

// train stands for a training run that saved a checkpoint.
func train(ctx context.Context, dir string) (path string, err error) {
	store, err := checkpoint.Open(dir, checkpoint.Options{})
	if err != nil {
		return "", err
	}
	s := state.State{Step: 469, Ledger: schedule.NewLedger(60000), Values: []float32{1, 2, 3, 4, 5, 6}}
	return store.Save(ctx, checkpoint.Manifest{
		Step:        s.Step,
		Fingerprint: s.Fingerprint().String(),
		Tensors: []checkpoint.Tensor{
			{Name: "dense/kernel", Shape: []int{2, 2}, Offset: 0},
			{Name: "dense/bias", Shape: []int{2}, Offset: 4},
		},
	}, func(w io.Writer) error {
		_, err := s.WriteTo(w)
		return err
	})
}
