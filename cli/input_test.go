package cli

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// TestInputEndsWithItsContext: a terminal at which nothing is typed does not hold a command that is asked to end.
func TestInputEndsWithItsContext(t *testing.T) {
	r, w := io.Pipe()
	defer w.Close()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() {
		_, err := io.ReadAll(input{ctx, r})
		ended <- err
	}()
	if _, err := w.Write([]byte("begun")); err != nil { // returns when it is read
		t.Fatal(err)
	}
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
	text := strings.Repeat("what is read is what came, ", 1000)
	for _, from := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)),
		iotest.DataErrReader(strings.NewReader(text))} {
		if got, err := io.ReadAll(input{t.Context(), from}); err != nil || !bytes.Equal(got, []byte(text)) {
			t.Errorf("%d bytes, %v, want %d", len(got), err, len(text))
		}
	}
}
