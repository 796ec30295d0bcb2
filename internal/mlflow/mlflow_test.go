package mlflow

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/progress"
)

// server is a small MLflow. deploy/interoptest uses the real one.
type server struct {
	*httptest.Server
	mu      sync.Mutex
	failing int // calls that are answered by status 500
	calls   []string
	runs    map[string]string // id by job's tag
	params  map[string]string
	metrics []metric
	tags    map[string]string
	status  string
	refuse  string // metrics of this name
}

func serve(t *testing.T) *server {
	s := &server{runs: map[string]string{}, params: map[string]string{}, tags: map[string]string{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failing > 0 {
			s.failing--
			http.Error(w, "<html>try later", http.StatusInternalServerError)
			return
		}
		text, _ := io.ReadAll(r.Body)
		s.answer(w, strings.TrimPrefix(r.URL.Path, "/api/2.0/mlflow/"), text)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *server) answer(w http.ResponseWriter, path string, text []byte) {
	s.calls = append(s.calls, path)
	var body struct {
		Status, Filter string
		Metrics        []metric
		Params, Tags   []keyValue
		ExperimentID   string `json:"experiment_id"`
	}
	_ = json.Unmarshal(text, &body)
	switch path {
	case "experiments/get-by-name":
		w.WriteHeader(http.StatusNotFound)
		fmt.Fprint(w, `{"error_code":"RESOURCE_DOES_NOT_EXIST"}`)
	case "experiments/create":
		fmt.Fprint(w, `{"experiment_id":"7"}`)
	case "runs/search":
		for job, id := range s.runs {
			if strings.Contains(body.Filter, job) {
				fmt.Fprintf(w, `{"runs":[{"info":{"run_id":%q}}]}`, id)
				return
			}
		}
		fmt.Fprint(w, `{}`)
	case "runs/create":
		s.runs[body.Tags[len(body.Tags)-1].Value] = "r1"
		fmt.Fprint(w, `{"run":{"info":{"run_id":"r1"}}}`)
	case "runs/update":
		s.status = body.Status
		fmt.Fprint(w, `{}`)
	case "runs/log-batch":
		for _, m := range body.Metrics {
			if m.Key == s.refuse {
				w.WriteHeader(http.StatusBadRequest)
				fmt.Fprint(w, `{"error_code":"INVALID_PARAMETER_VALUE","message":"no"}`)
				return
			}
		}
		s.metrics = append(s.metrics, body.Metrics...)
		for _, p := range body.Params {
			s.params[p.Key] = p.Value
		}
		for _, p := range body.Tags {
			s.tags[p.Key] = p.Value
		}
		fmt.Fprint(w, `{}`)
	}
}

func begin(s *server, warned io.Writer) *Run {
	return Begin(Config{URL: s.URL + "/", Experiment: "evenweave", Params: map[string]string{"seed": "1"},
		Log: slog.New(slog.NewTextHandler(warned, nil)), Pause: time.Microsecond})
}

func observe(r *Run, e progress.Event) { r.Observe(progress.Record{Time: time.UnixMilli(5), Event: e}) }

func steps(r *Run, from, to int) {
	for n := from; n <= to; n++ {
		observe(r, progress.Step{Step: n, Loss: float64(n), Metrics: []progress.Metric{{Name: "accuracy: top",
			Value: 1}}})
	}
}

func closed(t *testing.T, r *Run) {
	t.Helper()
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// losses are the steps of the losses that the server has, in order.
func (s *server) losses() (steps []int64) {
	for _, m := range s.metrics {
		if m.Key == "train/loss" && m.Value == float64(m.Step) && m.Timestamp == 5 {
			steps = append(steps, m.Step)
		}
	}
	return steps
}

// A job is one run, over several processes; a server that fails for a while loses nothing.
func TestAJobIsOneRun(t *testing.T) {
	s := serve(t)
	s.failing = 5
	var warned strings.Builder
	first := begin(s, &warned)
	observe(first, progress.Start{Job: "evenweave", UUID: "u-1", Backend: "go"})
	steps(first, 1, 700)
	for {
		s.mu.Lock()
		up := s.failing == 0
		s.mu.Unlock()
		if up {
			break
		}
		observe(first, progress.Start{Job: "evenweave", UUID: "u-1", Backend: "go"})
	}
	observe(first, progress.Done{Step: 700})
	closed(t, first)
	if got := s.losses(); len(got) != 700 || got[699] != 700 || s.status != "KILLED" || s.params["seed"] != "1" {
		t.Errorf("%d losses, status %s, params %v", len(got), s.status, s.params)
	}
	if n := strings.Count(warned.String(), "MLflow does not take"); n > 1 {
		t.Errorf("%d warnings:\n%s", n, &warned)
	}
	second := begin(s, io.Discard)
	observe(second, progress.Start{Job: "evenweave", UUID: "u-1"})
	steps(second, 701, 701)
	observe(second, progress.Evaluation{Step: 701, Figures: []evenweave.Figure{{Name: "loss", Value: 2}}})
	observe(second, progress.Done{Step: 701, Complete: true, WeightsSHA256: "ab"})
	closed(t, second)
	if got := s.losses(); len(got) != 701 || len(s.runs) != 1 || s.status != "FINISHED" ||
		s.tags["evenweave.weights_sha256"] != "ab" || s.metrics[len(s.metrics)-1].Key != "test/loss" ||
		s.metrics[1].Key != "train/accuracy_ top" {
		t.Errorf("%d losses, %d runs, status %s, tags %v", len(got), len(s.runs), s.status, s.tags)
	}
}

// A server that accepts and never answers holds nothing up: neither a step nor the end.
func TestAServerThatHangs(t *testing.T) {
	release := make(chan struct{})
	hanging := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(func() { close(release); hanging.Close() })
	r := Begin(Config{URL: hanging.URL, Log: slog.New(slog.DiscardHandler)})
	observe(r, progress.Start{UUID: "u"})
	steps(r, 1, 3*maxPending)
	r.mu.Lock()
	waiting := len(r.metrics)
	r.mu.Unlock()
	if waiting > maxPending {
		t.Errorf("%d metrics wait, at most %d may", waiting, maxPending)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.Close(ended); err == nil || !strings.Contains(err.Error(), "lacks") {
		t.Error(err)
	}
}

// What the server refuses for good is left out and named, and the rest goes on.
func TestWhatIsRefusedIsLeftOut(t *testing.T) {
	s := serve(t)
	s.refuse = "test/odd"
	r := begin(s, io.Discard)
	observe(r, progress.Start{UUID: "u"})
	observe(r, progress.Evaluation{Step: 1, Figures: []evenweave.Figure{{Name: "odd", Value: 1}}})
	for {
		r.mu.Lock()
		lost := r.lost
		r.mu.Unlock()
		if lost > 0 {
			break
		}
	}
	steps(r, 1, 3)
	observe(r, progress.Done{Complete: true})
	if err := r.Close(t.Context()); err == nil || !strings.Contains(err.Error(), "lacks 1 values") {
		t.Error(err)
	}
	if got := s.losses(); len(got) != 3 || s.status != "FINISHED" {
		t.Errorf("%d losses, status %s", len(got), s.status)
	}
}

func TestCheckURL(t *testing.T) {
	for address, good := range map[string]bool{"http://127.0.0.1:5000": true, "https://a/b": true, "": false,
		"127.0.0.1:5000": false, "file:///tmp": false, "http://": false, "http://a b": false} {
		if err := CheckURL(address); (err == nil) != good {
			t.Errorf("%q: %v", address, err)
		}
	}
}
