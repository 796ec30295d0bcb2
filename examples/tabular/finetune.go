package main

import (
	"context"

	"evenweave"
	"evenweave/gomlx"
)

// Prepare implements evenweave.Preparer: a run that starts from other weights is another run.
func (t *table) Prepare(context.Context) (notes []string, err error) {
	t.Init, err = gomlx.HashOf(t.InitFrom)
	return nil, err
}

// export writes a checkpoint that GoMLX reads, and --init-from.
func export(_ context.Context, c *evenweave.Invocation) error {
	return c.Model.(*gomlx.Model).Export(c.Args[0])
}
