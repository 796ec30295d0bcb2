package cli

import (
	"context"
	"io"
)

// input is standard input for a command: a read ends with the context, though a terminal's or a pipe's cannot be
// interrupted. One goroutine then waits until the process ends.
type input struct {
	ctx  context.Context
	from io.Reader
}

// Read implements io.Reader.
func (i input) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	buffer, done := make([]byte, len(p)), make(chan result, 1)
	go func() {
		n, err := i.from.Read(buffer)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, buffer[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, context.Cause(i.ctx)
	}
}
