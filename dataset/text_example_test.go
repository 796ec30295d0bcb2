package dataset_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"evenweave"
	"evenweave/dataset"
)

// Every byte of a directory's text files is a token; the last fifth is the test part.
func ExampleText() {
	dir, err := os.MkdirTemp("", "text")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv("XDG_CACHE_HOME", dir) // where the manifest is kept
	if err := os.WriteFile(filepath.Join(dir, "poem.txt"), []byte("so much depends upon a red wheel barrow"),
		0o600); err != nil {
		log.Fatal(err)
	}
	sets, err := dataset.Text(dir, dataset.Windows{Length: 5, Test: 0.2, Match: "*.txt"})
	if err != nil {
		log.Fatal(err)
	}
	batch := evenweave.Batch{Samples: []int32{1}}
	if err := sets.Train.Load(&batch); err != nil {
		log.Fatal(err)
	}
	content := batch.Content.(*dataset.Content)
	fmt.Println(sets.Train.Len(), sets.Test.Len(), content.Inputs[0].Shape, content.Labels[0].Shape)
	for i := 0; i < len(content.Inputs[0].Bytes); i += 4 {
		fmt.Printf("%c%c ", content.Inputs[0].Bytes[i], content.Labels[0].Bytes[i])
	}
	// Output:
	// 6 1 [5] [5 1]
	// ch h   d de ep
}
