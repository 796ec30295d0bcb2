package dataset_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"evenweave"
	"evenweave/dataset"
)

const recordBytes = 4 + 3*4 // a label, int32, and three numbers, float32: little-endian

// records are a dataset.Source: a file of records of one length. Its digest is that of the file, each block of which is
// checked when it is read.
type records struct{ *dataset.Files }

// Len is the number of samples; that of Files is the number of files.
func (r records) Len() int { return int(r.Size(0) / recordBytes) }

func (records) Layout() (inputs, labels []dataset.Flat) {
	return []dataset.Flat{{Type: evenweave.Float32, Shape: []int{3}}},
		[]dataset.Flat{{Type: evenweave.Int32, Shape: []int{1}}}
}

// Read gets the sample from the file in each call: it keeps nothing, so that several goroutines may call it.
func (r records) Read(i int, inputs, labels [][]byte) (weight float32, err error) {
	var record [recordBytes]byte
	if err := r.ReadAt(0, record[:], int64(i)*recordBytes); err != nil {
		return 0, err
	}
	copy(labels[0], record[:4])
	copy(inputs[0], record[4:])
	return 1, nil
}

func open(dir string) (sets evenweave.Sets, err error) {
	files, err := dataset.OpenFiles(dir, "records.bin")
	if err != nil {
		return sets, err
	}
	all, err := dataset.New(records{files})
	if err != nil {
		return sets, err
	}
	// neighbours in the file may be alike
	sets.Train, sets.Test, err = dataset.Split(dataset.Shuffle(all, 1), all.Len()/5)
	return sets, err
}

// Anything that has a sample at an index is data: open is the Data of a task.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "records")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	os.Setenv("XDG_CACHE_HOME", dir) // where the manifest is kept
	if err := os.WriteFile(filepath.Join(dir, "records.bin"), make([]byte, 10*recordBytes), 0o600); err != nil {
		log.Fatal(err)
	}
	sets, err := open(dir)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(sets.Train.Len(), "to train on,", sets.Test.Len(), "to test on")
	// Output: 8 to train on, 2 to test on
}
