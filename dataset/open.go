package dataset

import (
	"os"

	"evenweave/internal/regular"
)

// Open opens the regular file that path leads to. A device, or a FIFO that somebody has put there, is an error at once
// and not a wait.
func Open(path string) (*os.File, error) {
	f, _, err := regular.Open(path)
	return f, err
}
