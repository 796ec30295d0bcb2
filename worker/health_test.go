package worker

import (
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"evenweave/proto"
)

func TestHealthFailsOnlyWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReport("w1", "j")
		if _, ok := r.health(time.Now()); !ok {
			t.Error("not healthy before the loop runs")
		}
		r.progressed(time.Minute)
		time.Sleep(50 * time.Second)
		r.commit(&proto.Commit{Step: 1}, nil) // progress
		time.Sleep(50 * time.Second)
		if line, ok := r.health(time.Now()); !ok {
			t.Error("not healthy 50 s after a commit:", line)
		}
		time.Sleep(11 * time.Second)
		if line, ok := r.health(time.Now()); ok || !strings.Contains(line, "1m1s without progress") {
			t.Errorf("61 s after a commit: %v %q", ok, line)
		}
	})
}

func TestPages(t *testing.T) {
	registered := false
	l := &Loop{report: newReport("w1", "j")}
	for _, c := range []struct {
		path string
		code int
	}{{"/healthz", 200}, {"/readyz", 503}, {"/metrics", 404}} {
		w := httptest.NewRecorder()
		l.Handler(nil, func() bool { return registered }).ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.code {
			t.Errorf("%s: %d %s, want %d", c.path, w.Code, w.Body, c.code)
		}
		w = httptest.NewRecorder()
		openingPages(nil).ServeHTTP(w, httptest.NewRequest("GET", c.path, nil))
		if w.Code != c.code {
			t.Errorf("before the job, %s: %d %s, want %d", c.path, w.Code, w.Body, c.code)
		}
	}
}
