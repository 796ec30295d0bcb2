package interoptest

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/internal/progress"
)

// scalars are values by tag: pairs of step and value.
type scalars map[string][][2]float64

// A run of two processes, one after the other, is one curve in TensorBoard and one run in MLflow, with every value that
// metrics.jsonl has.
func TestCurve(t *testing.T) {
	python(t)
	address := mlflowServer(t)
	dir := t.TempDir()
	train := func(args ...string) {
		run(t, append([]string{"train", "--dir", dir, "--workers", "1", "--mlflow", address, "-o", "json"}, args...)...)
	}
	train("--steps", "8")
	train("--steps", "12", "--extend")
	var records []progress.Record
	damaged, err := progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"),
		func(r progress.Record) { records = append(records, r) })
	if err != nil || damaged.Lines > 0 {
		t.Fatal(err, damaged)
	}

	var events scalars
	decode(t, reads(t, "read_tensorboard.py", filepath.Join(dir, "tensorboard")), &events)
	wanted := wantedOf(records, func(v float64) float64 { return float64(float32(v)) })
	for n := 1; n <= 12; n++ {
		wanted["train/learning_rate"] = append(wanted["train/learning_rate"], [2]float64{float64(n),
			float64(float32(1e-3))})
		wanted["cluster/world_size"] = append(wanted["cluster/world_size"], [2]float64{float64(n), 1})
	}
	compare(t, "TensorBoard", events, wanted)
	pictures := 0
	for tag, sizes := range events {
		if strings.HasPrefix(tag, "pictures/") && slices.ContainsFunc(sizes, func(at [2]float64) bool {
			return at[0] == 12 && at[1] >= 28*28
		}) {
			pictures++
		}
	}
	if pictures == 0 {
		t.Error("TensorBoard has no picture of the last evaluation")
	}
	t.Log("TensorBoard pictures of step 12:", pictures)

	var runs []struct {
		Status       string
		Params, Tags map[string]string
		Metrics      scalars
	}
	decode(t, reads(t, "read_mlflow.py", address, "evenweave"), &runs)
	if len(runs) != 1 || runs[0].Status != "FINISHED" || runs[0].Params["seed"] != "1" ||
		runs[0].Params["option/recipe"] != "tutorial" || len(runs[0].Tags["evenweave.weights_sha256"]) != 64 {
		t.Fatalf("MLflow: %+v", runs)
	}
	compare(t, "MLflow", runs[0].Metrics, wantedOf(records, func(v float64) float64 { return v }))
}

// wantedOf are the values of a curve, in the precision of a reader.
func wantedOf(records []progress.Record, as func(float64) float64) scalars {
	all := scalars{}
	add := func(tag string, step int, v float64) { all[tag] = append(all[tag], [2]float64{float64(step), as(v)}) }
	for _, r := range records {
		switch e := r.Event.(type) {
		case progress.Step:
			add("train/loss", e.Step, e.Loss)
			for _, m := range e.Metrics {
				add("train/"+m.Name, e.Step, m.Value)
			}
		case progress.Evaluation:
			for _, f := range e.Figures {
				add("test/"+f.Name, e.Step, f.Value)
			}
		}
	}
	return all
}

func compare(t *testing.T, reader string, got, want scalars) {
	t.Helper()
	if len(want["train/loss"]) != 12 || len(want["test/accuracy"]) == 0 {
		t.Fatalf("metrics.jsonl has %v", want)
	}
	for tag, values := range want {
		if !slices.Equal(got[tag], values) {
			t.Errorf("%s has %s = %v, want %v", reader, tag, got[tag], values)
		}
		t.Log(reader, tag, len(got[tag]), "values, the last", got[tag][len(got[tag])-1])
	}
}

func decode(t *testing.T, text string, to any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), to); err != nil {
		t.Fatalf("%v: %s", err, text)
	}
}

// mlflowServer runs MLflow's server on loopback until the test ends.
func mlflowServer(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	dir := t.TempDir()
	cmd := exec.Command(python(t), "-I", "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", port, "--workers",
		"1",
		"--backend-store-uri", "sqlite:///"+filepath.Join(dir, "mlflow.db"), "--artifacts-destination", dir)
	cmd.Dir, cmd.Stdout, cmd.Stderr = dir, os.Stderr, os.Stderr
	bounded(cmd)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { end(cmd) })
	address = "http://127.0.0.1:" + port
	ctx, cancel := context.WithTimeout(t.Context(), deadline)
	defer cancel()
	for tick := time.NewTicker(200 * time.Millisecond); ; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("MLflow's server does not answer")
		}
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/health", nil)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := http.DefaultClient.Do(r); err == nil {
			_ = answer.Body.Close()
			if answer.StatusCode == http.StatusOK {
				return address
			}
			t.Log(fmt.Sprint("MLflow's server: ", answer.Status))
		}
	}
}
