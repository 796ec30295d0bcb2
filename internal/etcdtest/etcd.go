// Package etcdtest runs a real etcd, at a Unix socket, for tests.
package etcdtest

import (
	"context"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"evenweave/internal/local"
	"evenweave/internal/security"
)

// Server is an etcd that a test may stop and start again on its data.
type Server struct {
	endpoint string
	files    security.Files // of its certificate

	t    testing.TB
	dir  string
	stop context.CancelFunc // nil: it does not run
	done chan error
}

// Start serves an etcd until the test ends; "" is a directory of its own. It listens when Start returns.
func Start(t testing.TB, dir string) *Server {
	t.Helper()
	if dir == "" {
		dir = t.TempDir()
	}
	s := &Server{t: t, dir: dir}
	sockets, err := security.MakeSockets()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Halt(); security.RemoveSockets(sockets) })
	s.endpoint = "unix:" + filepath.Join(sockets, "etcd.sock")
	if err := s.serve(); err != nil {
		t.Fatal(err)
	}
	return s
}

// StartTCP is Start at a free port of loopback, for tests of what is particular to TCP.
func StartTCP(t testing.TB) *Server {
	t.Helper()
	return startTCP(t, "http", security.Files{})
}

// StartTLS is StartTCP over TLS, with the files of the role etcd.
func StartTLS(t testing.TB, files security.Files) *Server {
	t.Helper()
	return startTCP(t, "https", files)
}

func startTCP(t testing.TB, scheme string, files security.Files) *Server {
	t.Helper()
	s := &Server{t: t, dir: t.TempDir(), files: files}
	t.Cleanup(s.Halt)
	for {
		free, err := local.PageAddress("127.0.0.1:0") // no outgoing connection takes it while the server is halted
		if err != nil {
			t.Fatal(err)
		}
		s.endpoint = scheme + "://" + free
		if err = s.serve(); err == nil {
			return s
		}
		if !strings.Contains(err.Error(), syscall.EADDRINUSE.Error()) { // else another process was quicker
			t.Fatal(err)
		}
	}
}

// Endpoint is where its clients reach it.
func (s *Server) Endpoint() string { return s.endpoint }

// Halt stops it, if it runs, and waits for its end.
func (s *Server) Halt() {
	if s.stop == nil {
		return
	}
	s.stop()
	s.stop = nil
	if err := <-s.done; err != nil {
		s.t.Errorf("etcd: %v", err)
	}
}

// Resume starts it again, on the same data, at the same endpoint.
func (s *Server) Resume() {
	s.t.Helper()
	if err := s.serve(); err != nil {
		s.t.Fatal(err)
	}
}

// serve returns once it listens, or why it does not.
func (s *Server) serve() error {
	ctx, stop := context.WithCancel(context.Background())
	ready := make(signal)
	done := make(chan error, 1)
	go func() { done <- local.ServeEtcd(ctx, s.dir, s.endpoint, s.files, ready) }()
	select {
	case <-ready:
		s.stop, s.done = stop, done
		return nil
	case err := <-done:
		stop()
		return err
	}
}

// signal is closed by the first, and only, line that is written.
type signal chan struct{}

func (s signal) Write(line []byte) (int, error) {
	close(s)
	return len(line), nil
}
