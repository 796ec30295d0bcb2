package serving

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Pages serves a process's pages, with limits on connections, time and size, until Close.
type Pages struct {
	Fail    context.CancelCauseFunc // called if serving ends before Close
	servers []*http.Server
	serving sync.WaitGroup
}

// Listen serves pages at host:port over plain HTTP, and returns where.
func (p *Pages) Listen(address string, pages http.Handler) (net.Addr, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listening for status pages: %w; choose another --http", err)
	}
	p.serve(limitPages(l), pages)
	return l.Addr(), nil
}

// ListenTLS serves pages at host:port over TLS: listen is that of security.Transport.
func (p *Pages) ListenTLS(address string, listen func(string, func(net.Listener) net.Listener) (net.Listener, error),
	pages http.Handler) error {
	l, err := listen(address, limitPages)
	if err != nil {
		return fmt.Errorf("listening for pages over TLS: %w; choose another --https", err)
	}
	p.serve(l, pages)
	return nil
}

func (p *Pages) serve(l net.Listener, pages http.Handler) {
	s := newPages(pages)
	p.servers = append(p.servers, s)
	p.serving.Go(func() {
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			p.Fail(fmt.Errorf("serving pages: %w", err))
		}
	})
}

// Close ends all servers and their connections.
func (p *Pages) Close() {
	for _, s := range p.servers {
		_ = s.Close()
	}
	p.serving.Wait()
}

// limitPages bounds the connections of pages. TLS comes on top: a server of pages must see its connections.
func limitPages(l net.Listener) net.Listener { return netutil.LimitListener(l, maxPages) }

// An answer has this long, and a file that is sent has it for each portion.
const (
	answerTimeout = time.Minute
	portion       = 1 << 20 // bytes
)

// newPages returns a server of pages, with limits of time and size on what it reads and writes.
func newPages(h http.Handler) *http.Server {
	portions := func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(portioned{w}, r) }
	return &http.Server{
		Handler:           http.HandlerFunc(portions),
		ReadHeaderTimeout: handshake, ReadTimeout: handshake, WriteTimeout: answerTimeout,
		IdleTimeout: pageIdle, MaxHeaderBytes: 8 << 10, ErrorLog: log.New(withoutHandshakes{os.Stderr}, "",
			log.LstdFlags),
	}
}

// portioned is an answer. How long a file takes depends on its size and on the line: progress is the deadline.
type portioned struct{ http.ResponseWriter }

// Unwrap is for http.ResponseController.
func (p portioned) Unwrap() http.ResponseWriter { return p.ResponseWriter }

// ReadFrom sends a file, or what else is copied.
func (p portioned) ReadFrom(r io.Reader) (sent int64, err error) {
	control := http.NewResponseController(p.ResponseWriter)
	for err == nil {
		if err = control.SetWriteDeadline(time.Now().Add(answerTimeout)); err == nil {
			var n int64
			n, err = io.CopyN(p.ResponseWriter, r, portion)
			sent += n
		}
	}
	if err == io.EOF {
		err = nil
	}
	return sent, err
}

// withoutHandshakes leaves out the lines that say why a stranger's handshake has failed: anything that reaches the port
// can make as many as it likes.
type withoutHandshakes struct{ io.Writer }

func (w withoutHandshakes) Write(line []byte) (int, error) {
	if bytes.Contains(line, []byte("TLS handshake error from")) {
		return len(line), nil
	}
	return w.Writer.Write(line)
}

// AddProbes adds the pages that probes ask, /healthz and /readyz. A check says what the process does, and whether that
// is as it should be: otherwise the page answers 503.
func AddProbes(mux *http.ServeMux, healthy, ready func() (line string, ok bool)) {
	for path, check := range map[string]func() (string, bool){"GET /healthz": healthy, "GET /readyz": ready} {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			line, ok := check()
			if !ok {
				http.Error(w, line, http.StatusServiceUnavailable)
				return
			}
			fmt.Fprintln(w, "ok: "+line)
		})
	}
}
