package cli

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"evenweave/internal/etcdtest"
	"evenweave/internal/local"
	"evenweave/internal/web"
)

// TestStatusSaysHowARunEnded: from its directory alone, whatever the way in which it ended.
func TestStatusSaysHowARunEnded(t *testing.T) {
	dir := t.TempDir()
	status := func(want ...string) {
		t.Helper()
		out, err := command(t, "status", "--dir", dir).Output()
		for _, w := range append(want, dir+" is over") {
			if !strings.Contains(string(out), w) {
				t.Errorf("%v: %q is missing:\n%s", err, w, out)
			}
		}
	}
	if out, err := command(t, "train", "--dir", dir, "--workers", "1", "--epochs", "2").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	status("done at "+time.Now().Format("2006-"), "6 of 6, epoch 2", "test accuracy", "--extend", ".ckpt")
	out, err := command(t, "status", "--watch", "--dir", dir, "-o", "json").Output()
	var e ended
	if err == nil {
		err = json.Unmarshal(out, &e)
	}
	if err != nil || e.Event != "status" || e.State != "done" || e.Step != 6 || e.Steps != 6 || e.Workers != 1 ||
		len(e.Figures) == 0 || e.Evaluated != 6 || len(e.Weights) != 64 || e.Checkpoint == "" || e.Members == nil ||
		time.Since(e.At) > deadline {
		t.Errorf("%v: %s", err, out)
	}

	record := func(last local.Ended) {
		t.Helper()
		b, err := json.Marshal(last)
		if err = errors.Join(err, os.WriteFile(filepath.Join(dir, "ended.json"), b, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	record(local.Ended{Time: time.Now(), Code: 1, Reason: "no worker \x1b[31mcan start"})
	status("is over: failed", "no worker ", "can start", "goes on from the newest checkpoint")
	if out, _ := command(t, "status", "--dir", dir).Output(); strings.Contains(string(out), "\x1b") {
		t.Errorf("an escape code is printed: %q", out)
	}
	if err := os.WriteFile(filepath.Join(dir, "ended.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	status("done") // what the page kept still says so
}

// A coordinator's directory says how its job ended too; while it goes on, only etcd can say. The coordinator and the
// worker of the job send traces.
func TestStatusOfACoordinatorsDirectory(t *testing.T) {
	var mu sync.Mutex
	var sent strings.Builder
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		sent.Write(b)
	}))
	defer receiver.Close()
	endpoint, dir := etcdtest.Start(t, "").Endpoint(), t.TempDir()
	run := func(args ...string) *exec.Cmd {
		cmd := command(t, append(args, "--etcd", endpoint, "--insecure")...)
		cmd.Env = append(cmd.Env, "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL)
		return cmd
	}
	worker := run("worker", "--id", "worker-of-this-test")
	if err := worker.Start(); err != nil {
		t.Fatal(err)
	}
	if out, err := run("coordinator", "--dir", dir, "--steps", "5").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if err := worker.Wait(); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, "status", "--dir", dir).CombinedOutput()
	for _, want := range []string{dir + " is over: done", "5 of 5", "coordinator --dir " + dir + " --extend"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%v: %q is missing:\n%s", err, want, out)
		}
	}
	history := filepath.Join(dir, web.FileName)
	b, err := os.ReadFile(history)
	open := strings.Replace(string(b), `"state":"done"`, `"state":"training"`, 1)
	if err = errors.Join(err, os.WriteFile(history, []byte(open), 0o600)); err != nil || open == string(b) {
		t.Fatalf("%v: %.200s", err, b)
	}
	cmd := command(t, "status", "--dir", dir)
	if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != exitFailed ||
		!strings.Contains(string(out), "at step 5: training") || !strings.Contains(string(out), "--etcd") {
		t.Errorf("exit code %d: %s", cmd.ProcessState.ExitCode(), out)
	}
	mu.Lock()
	defer mu.Unlock()
	if s := sent.String(); strings.Count(s, "member step") != 5 || !strings.Contains(s, "worker-of-this-test") {
		t.Errorf("%d spans of a member's steps in %d bytes", strings.Count(s, "member step"), len(s))
	}
}

// What comes next is possible: there may be no checkpoint, and no longer schedule.
func TestWhatComesNext(t *testing.T) {
	for want, e := range map[string]ended{
		"--dir d` begins again: there is no checkpoint": {State: "failed"},
		"--dir d` goes on from the newest checkpoint":   {State: "killed", Checkpoint: "x.ckpt"},
		"goes on, if the learning rate does not depend": {State: "done", Checkpoint: "x.ckpt"},
	} {
		out := &strings.Builder{}
		if e.dir, e.program = "d", "train"; e.show(out) != nil || !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing:\n%s", want, out)
		}
	}
}

func TestOutcomes(t *testing.T) {
	for _, c := range []struct {
		state   string
		code    int // -1: nothing is written
		want    string
		because string
	}{
		{"done", 0, "done", "all steps"}, {"done", -1, "done", "all steps"}, {"training", 0, "done", "all steps"},
		{"stopped", 130, "stopped", "its last step saved"}, {"stopped", -1, "stopped", "its last step saved"},
		{"training", 130, "stopped", "without a last checkpoint"}, {"recovering", 130, "stopped", "without"},
		{"training", 1, "failed", "why"}, {"failed", 1, "failed", "why"}, {"failed", -1, "failed", "page"},
		{"done", 1, "failed", "why"}, // the steps were done, what came after was not
		{"training", -1, "killed", "killed"}, {"", -1, "killed", "killed"}, {"recorded", -1, "killed", "killed"},
	} {
		state, reason := outcome(web.Outcome{State: c.state, Failure: "the page says"},
			local.Ended{Code: c.code, Reason: "that is why"}, c.code >= 0)
		if state != c.want || !strings.Contains(reason, c.because) {
			t.Errorf("%+v: %s, %s", c, state, reason)
		}
	}
}
