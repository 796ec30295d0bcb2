package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
)

// savedRun is a run directory with whole checkpoints of the tiny model at those steps, and their paths.
func savedRun(t *testing.T, steps ...int64) (dir string, paths []string) {
	t.Helper()
	dir = t.TempDir()
	layout, err := state.NewLayout(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	spec, err := json.Marshal(job.Spec{Task: "tiny", Data: "points", Samples: 100, GlobalBatch: 32, MicroBatch: 8,
		Epochs: 1, Options: job.Options{"points": json.RawMessage("100"), "hash": json.RawMessage(`""`)}})
	if err != nil {
		t.Fatal(err)
	}
	for _, step := range steps {
		s := state.New(layout, 100)
		s.Step, s.Image[0] = step, byte(step)
		path, err := checkpointtest.Save(t.Context(), filepath.Join(dir, "checkpoints"),
			checkpoint.Manifest{Task: "tiny", Job: "a job", Term: 2, Spec: spec}, s)
		if err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return dir, paths
}

// flip changes one bit of a file, counted from its end: the image lies before the last 40 bytes.
func flip(t *testing.T, path string, fromEnd int) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-fromEnd] ^= 4
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// ends runs a command and returns its standard output; its exit code must be that.
func ends(t *testing.T, code int, args ...string) (out, errOut string) {
	t.Helper()
	cmd := command(t, args...)
	var warned bytes.Buffer
	cmd.Stderr = &warned
	b, err := cmd.Output()
	if _, exited := err.(*exec.ExitError); err != nil && !exited || cmd.ProcessState.ExitCode() != code {
		t.Fatalf("%v: exit code %d, want %d: %v\n%s%s", args, cmd.ProcessState.ExitCode(), code, err, b, warned.Bytes())
	}
	return string(b), warned.String()
}

// lines are the JSON lines of an output.
func lines(t *testing.T, out string) (all []checkpointLine) {
	t.Helper()
	for line := range strings.Lines(out) {
		var l checkpointLine
		if err := json.Unmarshal([]byte(line), &l); err != nil || l.Time.IsZero() || l.Event == "" {
			t.Fatalf("%v: %s", err, line)
		}
		all = append(all, l)
	}
	return all
}

func TestCheckpointList(t *testing.T) {
	dir, paths := savedRun(t, 5, 10, 15)
	if err := os.Symlink(filepath.Base(paths[1]), filepath.Join(dir, "checkpoints", "best")); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(paths[0], 50); err != nil {
		t.Fatal(err)
	}
	saved, _, err := checkpoint.Peek(paths[1])
	if err != nil {
		t.Fatal(err)
	}
	out, _ := ends(t, exitDone, "checkpoint", "list", "--dir", dir, "-o", "json")
	got := lines(t, out)
	if len(got) != 3 || got[0].Path != paths[2] || got[0].Step != 15 || got[0].Valid != nil || !got[1].Best ||
		got[1].WeightsSHA256 != saved.WeightsSHA256 || got[2].Step != 5 ||
		!strings.Contains(got[2].Error, "cut off") {
		t.Errorf("%+v", got)
	}
	out, _ = ends(t, exitDone, "checkpoint", "list", "--dir", dir)
	rows := strings.Split(strings.TrimSpace(out), "\n")
	if len(rows) != 4 || !strings.HasPrefix(rows[0], "STEP") || !strings.HasPrefix(rows[1], "15") ||
		!strings.Contains(rows[2], "(best)") || !strings.Contains(rows[3], "cut off") {
		t.Errorf("%s", out)
	}
	_, why := ends(t, exitFailed, "checkpoint", "list", "--dir", t.TempDir())
	if !strings.Contains(why, "no checkpoint in") {
		t.Error(why)
	}
}

func TestCheckpointShow(t *testing.T) {
	dir, paths := savedRun(t, 5, 10)
	out, _ := ends(t, exitDone, "checkpoint", "show", "--dir", dir, "-o", "json")
	got := lines(t, out)
	if len(got) != 1 || got[0].Step != 10 || got[0].Valid == nil || !*got[0].Valid || got[0].Job != "a job" ||
		len(got[0].Tensors) != len(example.NewSoftmax().Tensors()) || !bytes.Contains(got[0].Spec, []byte(`"points"`)) {
		t.Errorf("%+v", got)
	}
	out, _ = ends(t, exitDone, "checkpoint", "show", paths[0])
	for _, want := range []string{paths[0], "tiny", "step            5 (epoch 0), saved in term 2",
		"option points", example.NewSoftmax().Tensors()[0].Name} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	ends(t, exitUsage, "checkpoint", "show", "a", "b")
	flip(t, paths[0], 49)
	if _, why := ends(t, exitFailed, "checkpoint", "show", paths[0]); !strings.Contains(why, "block 1 of 1") {
		t.Error(why)
	}
}

// A spec that cannot be trained is named, and the rest of the manifest is shown all the same.
func TestShowNamesASpecThatCannotBeUsed(t *testing.T) {
	layout, err := state.NewLayout(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"", "null", "{}", `{"epochs":3}`, `{"global_batch":32}`, `"none"`} {
		path, err := checkpointtest.Save(t.Context(), t.TempDir(),
			checkpoint.Manifest{Task: "tiny", Spec: json.RawMessage(spec)}, state.New(layout, 100))
		if err != nil {
			t.Fatal(err)
		}
		out, _ := ends(t, exitDone, "checkpoint", "show", path)
		if !strings.Contains(out, "cannot be used  spec: ") || !strings.Contains(out, layout.Tensors[0].Name) {
			t.Errorf("%s:\n%s", spec, out)
		}
	}
}

// What is damaged is named by file, block, expected and found, and the others are verified all the same.
func TestCheckpointVerify(t *testing.T) {
	dir, paths := savedRun(t, 5, 10, 15)
	out, _ := ends(t, exitDone, "checkpoint", "verify", "--dir", dir)
	if strings.Count(out, "ok ") != 3 {
		t.Errorf("%s", out)
	}
	flip(t, paths[1], 49)  // of the tensors
	flip(t, paths[2], 140) // of what is before them
	out, why := ends(t, exitFailed, "checkpoint", "verify", "--dir", dir, "-o", "json")
	got := lines(t, out)
	if len(got) != 3 || !strings.Contains(why, "2 of 3 checkpoints cannot be used") {
		t.Fatalf("%s%s", out, why)
	}
	if g := got[0]; *g.Valid || g.Path != paths[2] || len(g.Damage) != 0 || !strings.Contains(g.Error, "expected") {
		t.Errorf("%+v", g)
	}
	if g := got[1]; *g.Valid || g.Path != paths[1] || len(g.Damage) != 1 || g.Damage[0].Block != 1 ||
		g.Damage[0].Expected == g.Damage[0].Found || len(g.Damage[0].Found) != 64 {
		t.Errorf("%+v", g)
	}
	if !*got[2].Valid || got[2].Path != paths[0] {
		t.Errorf("%+v", got[2])
	}
	out, _ = ends(t, exitFailed, "checkpoint", "verify", paths[1], filepath.Join(dir, "no such file"), paths[0])
	if strings.Count(out, "damaged  ") != 2 || !strings.Contains(out, "block 1 of 1") ||
		!strings.Contains(out, "ok       "+paths[0]) {
		t.Errorf("%s", out)
	}
}

func TestCheckpointPrune(t *testing.T) {
	dir, paths := savedRun(t, 5, 10, 15, 20, 25)
	if err := os.Symlink(filepath.Base(paths[0]), filepath.Join(dir, "checkpoints", "best")); err != nil {
		t.Fatal(err)
	}
	flip(t, paths[4], 41) // the newest is damaged: it stays, and is not counted
	out, warned := ends(t, exitDone, "checkpoint", "prune", "--dir", dir, "--keep", "2")
	if out != "removed "+paths[1]+"\n" || !strings.Contains(warned, "skipped") ||
		!strings.Contains(warned, "removed 1 of 5") {
		t.Errorf("%s%s", out, warned)
	}
	out, _ = ends(t, exitDone, "checkpoint", "prune", "--dir", dir, "--keep", "1", "-o", "json")
	if got := lines(t, out); len(got) != 1 || got[0].Path != paths[2] || got[0].Event != "removed" {
		t.Errorf("%+v", got)
	}
	ends(t, exitUsage, "checkpoint", "prune", "--dir", dir, "--keep", "0")
	for i, kept := range []bool{true, false, false, true, true} {
		if _, err := os.Stat(paths[i]); (err == nil) != kept {
			t.Errorf("%s: %v, want it kept: %v", paths[i], err, kept)
		}
	}
	ends(t, exitDone, "checkpoint", "verify", paths[3]) // the newest valid one
}

// Where the link "best" is old, leads nowhere or was never made, the run's record says which checkpoint stays.
func TestPruneSparesTheBestOfTheRecord(t *testing.T) {
	for _, link := range []string{"", "step-00000001-term-0000000002.ckpt", "step-00000015-term-0000000002.ckpt"} {
		dir, paths := savedRun(t, 5, 10, 15, 20)
		if link != "" {
			if err := os.Symlink(link, filepath.Join(dir, "checkpoints", "best")); err != nil {
				t.Fatal(err)
			}
		}
		var record []byte
		for step, accuracy := range map[int]float64{5: 0.5, 10: 0.9, 15: 0.7} {
			line, err := progress.Encode(progress.Record{Time: time.Unix(1, 0), Event: progress.Evaluation{Step: step,
				Holdout: []evenweave.Figure{{Name: "accuracy", Value: accuracy, Better: evenweave.Higher}}}})
			if err != nil {
				t.Fatal(err)
			}
			record = append(record, line...)
		}
		if err := os.WriteFile(filepath.Join(dir, "metrics.jsonl"), record, 0o600); err != nil {
			t.Fatal(err)
		}
		ends(t, exitDone, "checkpoint", "prune", "--dir", dir, "--keep", "1")
		for i, kept := range []bool{false, true, filepath.Base(paths[2]) == link, true} {
			if _, err := os.Stat(paths[i]); (err == nil) != kept {
				t.Errorf("link %q: %s: %v, want it kept: %v", link, paths[i], err, kept)
			}
		}
	}
}
