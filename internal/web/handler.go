package web

import (
	"bytes"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"time"

	"evenweave/internal/regular"
)

const (
	tokenFile    = "page-token" // in a run directory: a page that is open survives a restart of its server
	tokenBytes   = 24
	maxStreams   = 16
	updateEvery  = 250 * time.Millisecond
	remindEvery  = 15 * time.Second // of a silent stream, so that both ends notice when it breaks
	writeTimeout = 10 * time.Second // for a reader that stalls
	prefix       = "/page/"
)

// Token is the secret of a run directory's page; it is made if there is none. It opens the page.
func Token(dir string) (string, error) {
	path := filepath.Join(dir, tokenFile)
	data, err := regular.Read(path, 1<<10)
	token := strings.TrimSpace(string(data))
	if decoded, bad := base64.RawURLEncoding.DecodeString(token); err == nil && bad == nil &&
		len(decoded) == tokenBytes {
		return token, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("reading the page's token: %w; remove it, and another is made", err)
	}
	secret := make([]byte, tokenBytes)
	_, _ = rand.Read(secret) // never fails
	token = base64.RawURLEncoding.EncodeToString(secret)
	if err := regular.Replace(path, []byte(token+"\n")); err != nil {
		return "", fmt.Errorf("keeping the page's token: %w", err)
	}
	return token, nil
}

// URL is the address of the page on a server that listens there.
func URL(listening net.Addr, token string) string {
	address := listening.String()
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().IsUnspecified() {
		address = fmt.Sprintf("127.0.0.1:%d", a.Port())
	}
	return "http://" + address + prefix + token + "/"
}

// Handler serves the page, /page/TOKEN/, to those that know its address; below it are snapshot (JSON) and stream
// (server-sent events). It answers only on loopback, and only reads.
func (p *Page) Handler(token string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+prefix+"{token}/{$}", static("text/html; charset=utf-8", livePage()))
	mux.HandleFunc("GET "+prefix+"{token}/page.css", static("text/css; charset=utf-8", style()))
	mux.HandleFunc("GET "+prefix+"{token}/page.js", static("text/javascript; charset=utf-8", script()))
	mux.HandleFunc("GET "+prefix+"{token}/snapshot", p.snapshot)
	mux.HandleFunc("GET "+prefix+"{token}/stream", p.stream)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		head := w.Header()
		head.Set("Content-Security-Policy", policy("'self'", "'self'")+"; frame-ancestors 'none'")
		head.Set("X-Content-Type-Options", "nosniff")
		head.Set("Referrer-Policy", "no-referrer")
		head.Set("Cross-Origin-Resource-Policy", "same-origin")
		head.Set("Cross-Origin-Opener-Policy", "same-origin")
		head.Set("Cache-Control", "no-store")
		if !loopback(r.Host) {
			http.Error(w, "this page answers on localhost and 127.0.0.1 only: forward a port to it",
				http.StatusForbidden)
			return
		}
		given, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, prefix), "/")
		if subtle.ConstantTimeCompare([]byte(given), []byte(token)) != 1 {
			http.Error(w, "the page's whole address is printed when training starts", http.StatusForbidden)
			return
		}
		mux.ServeHTTP(w, r)
	})
}

// loopback says whether a request names this machine as loopback does: a page elsewhere, whose name was made to lead
// here, does not.
func loopback(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if strings.EqualFold(host, "localhost") {
		return true
	}
	address, err := netip.ParseAddr(strings.Trim(host, "[]"))
	return err == nil && address.IsLoopback()
}

func policy(scripts, styles string) string {
	return "default-src 'none'; script-src " + scripts + "; style-src " + styles +
		"; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"
}

func static(kind string, content []byte) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", kind)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}
}

func (p *Page) snapshot(w http.ResponseWriter, _ *http.Request) {
	data, _, err := p.since(cursor{})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(data)
}

// stream sends all that is known, then what changes, until the reader goes, stalls, or the server is closed.
func (p *Page) stream(w http.ResponseWriter, r *http.Request) {
	select {
	case p.streams <- struct{}{}:
		defer func() { <-p.streams }()
	default:
		http.Error(w, "too many pages are open", http.StatusServiceUnavailable)
		return
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{}) // else the server's would end the stream; a recorder in a test has none
	w.Header().Set("Content-Type", "text/event-stream")
	tick := time.NewTicker(updateEvery)
	defer tick.Stop()
	var seen cursor
	for sent, over := time.Now(), false; ; {
		data, next, err := p.since(seen)
		if err != nil {
			return
		}
		message := ": still here\n\n"
		if data != nil {
			message = "data: " + string(data) + "\n\n"
		}
		if seen = next; data != nil || time.Since(sent) > remindEvery {
			_ = control.SetWriteDeadline(time.Now().Add(writeTimeout))
			if _, err := w.Write([]byte(message)); err != nil || control.Flush() != nil {
				return
			}
			sent = time.Now()
		}
		if over {
			return
		}
		select {
		case <-r.Context().Done():
			return
		case <-p.over:
			over = true
		case <-tick.C:
		}
	}
}
