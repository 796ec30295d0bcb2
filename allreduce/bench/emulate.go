package bench

import (
	"context"
	"errors"
)

func emulated(ctx context.Context, o Options, size int, out *printer) error {
	return errors.New("not yet")
}
