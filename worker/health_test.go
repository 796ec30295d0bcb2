package worker

import (
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"evenweave"
)

func TestHealthFailsOnlyWithoutProgress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReport("w1", "j")
		if _, ok := r.health(time.Now()); !ok {
			t.Error("not healthy before the loop runs")
		}
		r.progressed(time.Minute)
		time.Sleep(50 * time.Second)
		r.advanced()
		time.Sleep(50 * time.Second)
		if line, ok := r.health(time.Now()); !ok {
			t.Error("not healthy 50 s after progress:", line)
		}
		time.Sleep(11 * time.Second)
		if line, ok := r.health(time.Now()); ok || !strings.Contains(line, "1m1s without progress") {
			t.Errorf("61 s after progress: %v %q", ok, line)
		}
	})
}

// TestLongStepsAndFetchesAreHealthy: a step of minutes is no sign that a member is stuck, nor is the fetch of a large
// state, to the member that fetches and to those that wait for it.
func TestLongStepsAndFetchesAreHealthy(t *testing.T) {
	watch := func(t *testing.T, d time.Duration, h *hand) {
		t.Helper()
		for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(time.Second) { // virtual
			if line, ok := healthOf(h.report); !ok {
				t.Error(h.ID, "is not healthy:", line)
				return
			}
		}
	}
	for name, micro := range map[string]time.Duration{"steps of 160 s": 20 * time.Second, "one lane": time.Minute} {
		synctest.Test(t, func(t *testing.T) {
			c := newCrew(t, 6)
			a := c.start("a", 1, func(*evenweave.Batch) { time.Sleep(micro) }) // virtual: 8 of them a step
			c.publish(false, "a")
			watch(t, 5*8*micro, a)
			if s, _ := a.report.read(0); s.Step < 3 {
				t.Errorf("%s: step %d", name, s.Step)
			}
			c.kill()
		})
	}
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 6)
		c.large = 300 * time.Second
		a, b := c.start("a", 1, nil), c.start("b", 1, nil)
		c.publish(false, "a", "b")
		var waiting sync.WaitGroup
		for _, h := range []*hand{a, b} {
			waiting.Go(func() { watch(t, c.large, h) })
		}
		waiting.Wait()
		c.kill()
	})
}

// TestACommitAllowsTimeForTheNext: by the deadlines of the steps that were seen since the member entered its world.
func TestACommitAllowsTimeForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, 100)
		var wait atomic.Int64
		a := c.start("a", 1, func(*evenweave.Batch) { time.Sleep(time.Duration(wait.Load())) })
		wait.Store(int64(5 * time.Second)) // virtual: 40 s a step
		c.publish(false, "a")
		time.Sleep(4 * time.Minute)
		wait.Store(int64(10 * time.Minute))
		time.Sleep(9 * time.Minute)
		if line, ok := healthOf(a.report); !ok {
			t.Error("9 minutes after steps of 40 s:", line)
		}
		c.kill()
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
