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

// ReadFile returns the content of a regular file of at most limit bytes, so that a wrong or hostile file takes no more
// memory than that.
func ReadFile(path string, limit int64) ([]byte, error) { return regular.Read(path, limit) }
