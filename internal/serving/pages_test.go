package serving

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"
)

// TestStrangersFillNoLog: a failed handshake is no line, a handler that panics is one.
func TestStrangersFillNoLog(t *testing.T) {
	var said bytes.Buffer
	l := log.New(withoutHandshakes{&said}, "", 0)
	l.Printf("http: TLS handshake error from %s: EOF", "10.0.0.1:99")
	l.Print("http: panic serving 10.0.0.1:99")
	if said.String() != "http: panic serving 10.0.0.1:99\n" {
		t.Errorf("logged %q", said.String())
	}
	if _, ok := newPages(nil).ErrorLog.Writer().(withoutHandshakes); !ok {
		t.Error("pages log each handshake that fails")
	}
}

// TestPagesHaveLimits: the server gives up a caller that sends its header or body slowly, reads nothing, or stays after
// its request.
func TestPagesHaveLimits(t *testing.T) {
	for name, c := range map[string]struct {
		say   string
		read  bool // the caller reads the answer
		limit time.Duration
	}{
		"silent":        {"", true, handshake},
		"half a header": {"GET / HTTP/1.1\r\nHost: x\r\n", true, handshake},
		"half a body":   {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf", true, handshake},
		"a header too long": {"GET / HTTP/1.1\r\nHost: x\r\nLong: " + strings.Repeat("x", 64<<10) + "\r\n\r\n", true,
			0},
		"idle":          {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", true, pageIdle},
		"reads nothing": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", false, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := bufconn.Listen(1 << 10)
				pages := newPages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					_, _ = w.Write(make([]byte, 64<<10))
				}))
				closed := make(chan net.Conn, 1)
				pages.ConnState = func(c net.Conn, s http.ConnState) {
					if s == http.StateClosed {
						closed <- c
					}
				}
				served := make(chan error, 1)
				go func() { served <- pages.Serve(limitPages(l)) }()
				conn, err := l.DialContext(t.Context())
				if err != nil {
					t.Fatal(err)
				}
				begun := time.Now()
				go func() {
					_, _ = io.WriteString(conn, c.say)
					if c.read {
						_, _ = io.Copy(io.Discard, bufio.NewReader(conn))
					}
				}()
				select {
				case <-closed:
					if took := time.Since(begun); took > c.limit+time.Second {
						t.Errorf("given up after %v, expected %v", took, c.limit)
					}
				case <-time.After(time.Hour):
					t.Error("never given up")
				}
				_ = conn.Close()
				_ = pages.Close()
				if err := <-served; !errors.Is(err, http.ErrServerClosed) {
					t.Error(err)
				}
			})
		})
	}
}

// TestProgressIsTheDeadlineOfAFile: a slow reader gets all of it, one that reads no more is given up.
func TestProgressIsTheDeadlineOfAFile(t *testing.T) {
	const size, second = 5 * portion, 32 << 10 // bytes; a portion takes half a minute
	for _, stops := range []int{size, size / 2} {
		synctest.Test(t, func(t *testing.T) {
			l := bufconn.Listen(1 << 10)
			pages := newPages(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				http.ServeContent(w, r, "file", time.Time{}, bytes.NewReader(make([]byte, size)))
			}))
			closed := make(chan struct{}, 1)
			pages.ConnState = func(_ net.Conn, s http.ConnState) {
				if s == http.StateClosed {
					closed <- struct{}{}
				}
			}
			served := make(chan error, 1)
			go func() { served <- pages.Serve(limitPages(l)) }()
			conn, err := l.DialContext(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err != nil {
				t.Fatal(err)
			}
			for at := 0; at < stops; at += second {
				if _, err := io.CopyN(io.Discard, answer.Body, second); err != nil {
					t.Fatalf("after %d of %d bytes: %v", at, size, err)
				}
				<-time.After(time.Second)
			}
			begun := time.Now()
			<-closed
			if took := time.Since(begun); took > answerTimeout {
				t.Errorf("given up after %v", took)
			}
			_ = conn.Close()
			_ = pages.Close()
			if err := <-served; !errors.Is(err, http.ErrServerClosed) {
				t.Error(err)
			}
		})
	}
}
