package composetest

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"evenweave/internal/job"
	"evenweave/internal/telemetry"
	"evenweave/proto"
)

const (
	monitoring = "../monitoring"
	dashboard  = monitoring + "/grafana/dashboards/evenweave.json"
)

// expressions returns a dashboard's queries, as Grafana would send them.
func expressions(t *testing.T, path string) []string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var d struct {
		UID    string
		Panels []struct {
			ID         int
			Title      string
			Datasource struct{ UID string }
			Targets    []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	var out []string
	seen := map[int]bool{}
	for _, p := range d.Panels {
		if p.Title == "" || p.Datasource.UID != "prometheus" || seen[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%s: panel %d %q lacks a title, a query or the provisioned data source, or its id is taken",
				path, p.ID, p.Title)
		}
		seen[p.ID] = true
		for _, target := range p.Targets {
			out = append(out, strings.ReplaceAll(target.Expr, "$__rate_interval", "1m"))
		}
	}
	if d.UID == "" || len(out) == 0 {
		t.Errorf("%s: no uid, or no panels", path)
	}
	return out
}

// exported returns the names of all metrics of a coordinator and a worker.
func exported(t *testing.T) map[string]bool {
	t.Helper()
	w := telemetry.NewWorker("w")
	w.Entered(job.World{Peers: make([]job.Peer, 1)}, 0)
	w.Committed(&proto.Commit{Assignment: []int32{1}}, 0)
	names := map[string]bool{}
	for _, h := range []http.Handler{w.Handler(),
		telemetry.NewCoordinator(func() telemetry.Facts { return telemetry.Facts{} }).Handler()} {
		page := httptest.NewRecorder()
		h.ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
		for line := range bytes.Lines(page.Body.Bytes()) {
			if name, _, ok := bytes.Cut(line, []byte(" ")); ok && line[0] != '#' {
				name, _, _ = bytes.Cut(name, []byte("{"))
				names[string(name)] = true
			}
		}
	}
	return names
}

func TestDashboardAndRulesAskForMetricsThatExist(t *testing.T) {
	names := exported(t)
	metric := regexp.MustCompile(`\b(evenweave|process)_\w+`)
	text := strings.Join(expressions(t, dashboard), "\n")
	for _, file := range []string{"rules.yml", "rules_test.yml"} {
		b, err := os.ReadFile(filepath.Join(monitoring, file))
		if err != nil {
			t.Fatal(err)
		}
		text += "\n" + string(b)
	}
	for _, name := range metric.FindAllString(text, -1) {
		if !names[name] {
			t.Errorf("%s is asked for, and neither coordinator nor worker exports it", name)
		}
	}
}
