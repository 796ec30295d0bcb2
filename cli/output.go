package cli

import (
	"errors"
	"fmt"
	"io"
	"sync"
	"syscall"
)

// output is the standard output of a command. It remembers the first error of a write: the command then fails, instead
// of losing in silence what the user asked for.
type output struct {
	to  io.Writer
	mu  sync.Mutex
	err error
}

func (o *output) Write(b []byte) (int, error) {
	n, err := o.to.Write(b)
	if err != nil {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.err == nil {
			o.err = err
		}
	}
	return n, err
}

// errUnread fails a command whose reader, as `head`, has seen enough: that is no message's matter.
var errUnread = errors.New("nothing reads the output")

// also adds what was lost to the outcome of the command, unless that names it.
func (o *output) also(err error) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case errors.Is(o.err, syscall.EPIPE) && (err == nil || errors.Is(err, syscall.EPIPE)):
		return errUnread
	case o.err == nil || errors.Is(err, o.err):
		return err
	}
	lost := fmt.Errorf("standard output, not all of which was written: %w", o.err)
	if err == nil {
		return lost
	}
	return fmt.Errorf("%w; %w", err, lost)
}
