package checkpoint

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
)

// Newest returns the newest valid checkpoint of a run directory, or ErrNone. It calls damaged, which may be nil, for
// each file that it skips.
func Newest(ctx context.Context, dir string, damaged func(*DamagedError)) (*Entry, error) {
	store, err := Open(filepath.Join(dir, "checkpoints"), Options{Damaged: damaged})
	if err != nil {
		return nil, err
	}
	newest, err := store.Latest(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return newest, nil
}

// Find returns the file that path names: itself, or the newest valid checkpoint of a run directory, as Newest finds it.
func Find(ctx context.Context, path string, damaged func(*DamagedError)) (string, error) {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return path, nil // opening it gives the error
	}
	newest, err := Newest(ctx, path, damaged)
	if err != nil {
		return "", err
	}
	return newest.Path, nil
}
