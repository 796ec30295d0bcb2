package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/test/bufconn"

	"evenweave"
	"evenweave/internal/progress"
)

const secret = "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0"

func get(h http.Handler, method, path, host string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, nil)
	r.Host = host
	h.ServeHTTP(w, r)
	return w
}

func TestOnlyTheTokenOpensThePage(t *testing.T) {
	h := killed().page.Handler(secret)
	for path, want := range map[string]int{
		"/page/" + secret + "/": 200, "/page/" + secret + "/page.js": 200, "/page/" + secret + "/page.css": 200,
		"/page/" + secret + "/snapshot": 200, "/page/" + secret + "/other": 404, "/page/" + secret +
			"/../../metrics": 307,
		"/page/": 403, "/page/x/": 403, "/page/x/snapshot": 403, "/page/x/stream": 403, "/page/" + secret[:31] +
			"/snapshot": 403,
		"/page/" + secret + "x/snapshot": 403, "/page//snapshot": 403, "/": 403, "/metrics": 403, "/checkpoint": 403,
	} {
		if got := get(h, "GET", path, "127.0.0.1:8080").Code; got != want {
			t.Errorf("GET %s: %d, want %d", path, got, want)
		}
	}
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
		if got := get(h, method, "/page/"+secret+"/snapshot", "localhost").Code; got != 405 {
			t.Errorf("%s: %d, want 405", method, got)
		}
	}
}

// A page elsewhere whose name was made to lead to 127.0.0.1 gets nothing, even with the token.
func TestOnlyLoopbackNamesAreAnswered(t *testing.T) {
	h := New().Handler(secret)
	for host, want := range map[string]int{
		"localhost": 200, "localhost:9": 200, "LOCALHOST:9": 200, "127.0.0.1:9": 200, "127.8.8.8": 200, "[::1]:9": 200,
		"[::1]":        200,
		"evil.example": 403, "evil.example:80": 403, "10.0.0.1:80": 403, "localhost.evil.example": 403, "": 403,
		"127.0.0.1.evil.example": 403,
		"0.0.0.0:80":             403, "[::]:80": 403,
	} {
		if got := get(h, "GET", "/page/"+secret+"/", host).Code; got != want {
			t.Errorf("Host %q: %d, want %d", host, got, want)
		}
	}
}

func TestThePageReachesNothingElse(t *testing.T) {
	w := get(New().Handler(secret), "GET", "/page/"+secret+"/", "localhost")
	head := w.Header()
	for name, want := range map[string]string{
		"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'",
		"X-Content-Type-Options":  "nosniff", "Referrer-Policy": "no-referrer", "Cache-Control": "no-store",
	} {
		if got := head.Get(name); !strings.HasPrefix(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	for _, name := range append([]string{"page.html", "page.css"}, scripts...) {
		text := string(file(name))
		for _, m := range regexp.MustCompile(`(?i)(https?:)?//[a-z0-9.-]+\.[a-z]+[^\s"']*`).FindAllString(text, -1) {
			if !strings.Contains(m, "www.w3.org/2000/svg") { // a name, not an address
				t.Errorf("%s names %s", name, m)
			}
		}
		for _, unsafe := range []string{"innerHTML", "outerHTML =", "insertAdjacentHTML", "document.write", "eval(",
			"Function(", "@import", "onclick=", " style=\""} {
			if strings.Contains(text, unsafe) {
				t.Errorf("%s has %s", name, unsafe)
			}
		}
		if n := strings.Count(text, "\n"); n > 400 {
			t.Errorf("%s has %d lines, at most 400", name, n)
		}
		for i, line := range strings.Split(text, "\n") {
			if len([]rune(line)) > 120 {
				t.Errorf("%s:%d: %d columns, at most 120", name, i+1, len([]rune(line)))
			}
		}
	}
}

// hostile is text as another process may send it.
const hostile = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \x1b[31m\u202e & \"'"

func TestTextOfOthersStaysText(t *testing.T) {
	c := newCluster(hostile, "b")
	c.event(progress.Warning{Message: hostile})
	c.event(progress.MemberChange{ID: hostile, What: progress.Lost, Detail: hostile})
	c.event(progress.Checkpoint{Path: hostile})
	c.page.ObserveMember(c.now, progress.MemberReport{ID: hostile, Phase: hostile, Host: hostile, Address: hostile,
		Wait: &progress.Wait{For: hostile, Kind: hostile, Phase: hostile}})
	shows := details(1)
	shows.Tables[0].Title, shows.Tables[0].Rows[0].Name, shows.Galleries[0].Title = hostile, hostile, hostile
	shows.Galleries[0].Pictures[0].Caption = hostile
	shows.Galleries[0].Pictures[1].PNG = []byte(hostile)
	c.page.ObserveDetails(c.now, shows)
	c.event(progress.Evaluation{Step: 1, Figures: []evenweave.Figure{{Name: hostile, Value: 1}}})
	c.steps(3, time.Second)
	var report bytes.Buffer
	if err := c.page.WriteReport(&report); err != nil {
		t.Fatal(err)
	}
	text := report.String()
	if n, m := strings.Count(text, "<script"), strings.Count(text, "</script>"); n != 2 || m != 2 {
		t.Errorf("%d scripts begin and %d end, want 2: a text ended its element", n, m)
	}
	_, data := shown(t, c.page)
	for _, bad := range []string{"<img", "\x1b", "\u202e", `\u001b`, `\u202e`} {
		if strings.Contains(text, bad) || bytes.Contains(data, []byte(bad)) {
			t.Errorf("%q is in the page", bad)
		}
	}
	if !bytes.Contains(data, []byte("alert(1)")) {
		t.Error("the test has lost its subject")
	}
}

// A report says by hash what may run in it: its own script and nothing else.
func TestAReportIsWhole(t *testing.T) {
	var report bytes.Buffer
	if err := killed().page.WriteReport(&report); err != nil {
		t.Fatal(err)
	}
	text := report.String()
	if name := os.Getenv("EVENWEAVE_TEST_REPORT"); name != "" {
		if err := os.WriteFile(name, report.Bytes(), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d bytes; the live page has %d, %d and %d", report.Len(), len(livePage()), len(style()), len(script()))
	_, inline, _ := strings.Cut(text, "</script>\n<script>")
	inline, _, _ = strings.Cut(inline, "</script>")
	if inline != string(script()) || !strings.Contains(text, hash([]byte(inline))) {
		t.Error("the script's hash is not in the policy")
	}
	if strings.Contains(text, " src=") || strings.Contains(text, `rel="stylesheet"`) ||
		strings.Contains(text, "<!-- ") {
		t.Error("the report needs another file, or a part is missing")
	}
	_, data, _ := strings.Cut(text, `id="data">`)
	data, _, _ = strings.Cut(data, "</script>")
	var u update
	if err := json.Unmarshal([]byte(data), &u); err != nil || u.Job.Step != 475 {
		t.Errorf("step %d: %v", u.Job.Step, err)
	}
}

// The stream begins with all, goes on with what changes, outlives the server's limits on time, and begins again when a
// browser comes back.
func TestTheStreamGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, l := killed(), bufconn.Listen(1<<20)
		const limit = time.Second // virtual
		server := &http.Server{Handler: c.page.Handler(secret), ReadTimeout: limit, WriteTimeout: limit}
		go func() { _ = server.Serve(l) }()
		defer synctest.Wait()
		defer server.Close()
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) { return l.DialContext(ctx) }
		browser := http.Client{Transport: &http.Transport{DialContext: dial, DisableKeepAlives: true}}
		for range 2 { // a browser that comes again
			reply, err := browser.Get("http://127.0.0.1" + prefix + secret + "/stream")
			if err != nil {
				t.Fatal(err)
			}
			if kind := reply.Header.Get("Content-Type"); kind != "text/event-stream" {
				t.Fatalf("%s: %s", reply.Status, kind)
			}
			lines := bufio.NewScanner(reply.Body)
			lines.Buffer(nil, 4<<20)
			first := next(t, lines)
			if !first.Reset || first.Job.Step != c.step {
				t.Errorf("the first message: reset %v, step %d, want all up to %d", first.Reset, first.Job.Step, c.step)
			}
			for began := time.Now(); time.Since(began) < 5*limit; {
				c.steps(1, time.Second)
				if u := next(t, lines); u.Reset || u.Job.Step != c.step || len(u.Laps.Items) != 2 {
					t.Errorf("reset %v, step %d: want what changed, up to step %d", u.Reset, u.Job.Step, c.step)
				}
			}
			reply.Body.Close()
		}
	})
}

// A page that is open shows the end of the run before its server goes.
func TestTheLastEventIsSent(t *testing.T) {
	c := killed()
	server := httptest.NewServer(c.page.Handler(secret))
	defer server.Close()
	reply, err := http.Get(URL(server.Listener.Addr(), secret) + "stream")
	if err != nil {
		t.Fatal(err)
	}
	defer reply.Body.Close()
	lines := bufio.NewScanner(reply.Body)
	lines.Buffer(nil, 4<<20)
	next(t, lines)
	c.event(progress.Done{Step: c.step, Complete: true})
	c.page.Finish(time.Minute)
	if u := next(t, lines); u.Job.State != "done" {
		t.Errorf("the last message says %q, want done", u.Job.State)
	}
	if empty := lines.Scan(); empty && lines.Scan() {
		t.Errorf("the stream goes on: %s", lines.Text())
	}
}

func next(t *testing.T, lines *bufio.Scanner) (u update) {
	t.Helper()
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			if err := json.Unmarshal([]byte(data), &u); err != nil {
				t.Fatal(err)
			}
			return u
		}
	}
	t.Fatalf("the stream ended: %v", lines.Err())
	return u
}

func TestStreamsAreBounded(t *testing.T) {
	server := httptest.NewServer(New().Handler(secret))
	defer server.Close()
	defer server.CloseClientConnections()
	for i := range maxStreams + 1 {
		reply, err := http.Get(URL(server.Listener.Addr(), secret) + "stream")
		if err != nil {
			t.Fatal(err)
		}
		defer reply.Body.Close()
		if want := map[bool]int{true: 200, false: 503}[i < maxStreams]; reply.StatusCode != want {
			t.Errorf("stream %d: %s, want %d", i+1, reply.Status, want)
		}
		if i < maxStreams {
			if _, err := io.ReadAtLeast(reply.Body, make([]byte, 5), 5); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTheTokenIsKept(t *testing.T) {
	dir := t.TempDir()
	first, err := Token(dir)
	if err != nil || len(first) != 32 {
		t.Fatalf("%q, %v", first, err)
	}
	if again, err := Token(dir); again != first || err != nil {
		t.Errorf("%q, then %q, %v", first, again, err)
	}
	info, err := os.Stat(filepath.Join(dir, tokenFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if err := os.WriteFile(filepath.Join(dir, tokenFile), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if other, err := Token(dir); other == first || len(other) != 32 || err != nil {
		t.Errorf("a damaged one: %q, %v", other, err)
	}
}

func TestURL(t *testing.T) {
	for address, want := range map[string]string{"127.0.0.1:80": "http://127.0.0.1:80/page/x/",
		"0.0.0.0:80": "http://127.0.0.1:80/page/x/",
		"[::]:80":    "http://127.0.0.1:80/page/x/", "[::1]:80": "http://[::1]:80/page/x/"} {
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		if got := URL(a, "x"); got != want {
			t.Errorf("%s: %s, want %s", address, got, want)
		}
	}
}
