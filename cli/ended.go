package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/progress"
	"evenweave/internal/web"
)

// ended is what `status` says of a run that is over, from its directory alone. Fields that a live run has too have the
// same names.
type ended struct {
	Event       string             `json:"event"`
	Time        time.Time          `json:"time"`
	State       string             `json:"state"` // done, stopped, failed or killed
	Reason      string             `json:"reason"`
	At          time.Time          `json:"ended,omitzero"`
	Job         string             `json:"job"`
	Generation  uint64             `json:"generation"`
	Step        int                `json:"step"`
	Steps       int                `json:"steps"` // 0: not known
	Epoch       int                `json:"epoch"`
	Workers     int                `json:"workers"` // at the end
	Members     []memberStatus     `json:"members"` // none now
	Coordinator *leaderStatus      `json:"coordinator"`
	Weights     string             `json:"weights_sha256,omitempty"`
	Checkpoint  string             `json:"checkpoint,omitempty"` // the newest valid one
	Evaluated   int                `json:"evaluated_step,omitempty"`
	Figures     []evenweave.Figure `json:"figures,omitempty"` // of the last evaluation

	dir     string
	program string // that goes on with it: train or coordinator
}

// howItEnded reads a run directory in which nothing runs; warnings are for what cannot be read there.
func howItEnded(ctx context.Context, dir string, warn io.Writer) ended {
	e := ended{Event: "status", Time: time.Now(), Members: []memberStatus{}, dir: dir, program: "train"}
	if coordinators(dir) {
		e.program = "coordinator"
	}
	page := web.New()
	add, done, err := page.Recall(dir)
	if err != nil {
		fmt.Fprintln(warn, "warning:", err)
	}
	_, err = progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"), func(r progress.Record) {
		if v, ok := r.Event.(progress.Evaluation); ok && v.Step >= e.Evaluated {
			e.Evaluated, e.Figures = v.Step, v.Figures
		}
		add(r)
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(warn, "warning:", err)
	}
	done()
	o := page.Outcome()
	e.Job, e.Generation, e.Step, e.Steps = o.UUID, o.Generation, o.Step, o.Steps
	e.Epoch, e.Workers, e.Weights = o.Epoch, o.Workers, o.WeightsSHA256
	e.Checkpoint, err = newestCheckpoint(ctx, dir, warn)
	if err != nil {
		fmt.Fprintln(warn, "warning:", err)
	}
	last, err := local.HowEnded(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		fmt.Fprintln(warn, "warning:", err)
	}
	e.At = last.Time
	e.State, e.Reason = outcome(o, last, err == nil)
	e.Reason = job.Clean(e.Reason)
	return e
}

// coordinators says whether the directory is that of a cluster's coordinator: a run of `train` has a lock there.
func coordinators(dir string) bool {
	_, noLock := os.Lstat(filepath.Join(dir, "lock"))
	_, noPage := os.Lstat(filepath.Join(dir, web.FileName))
	return errors.Is(noLock, fs.ErrNotExist) && noPage == nil
}

// coordinatorEnded says whether the job that a coordinator keeps in a directory is over, by what it wrote there at the
// end. Else the error says what was written last: only etcd knows whether the job goes on.
func coordinatorEnded(dir string) (bool, error) {
	if !coordinators(dir) {
		return false, nil
	}
	page := web.New()
	_, done, err := page.Recall(dir)
	if err != nil {
		return false, err
	}
	done()
	o := page.Outcome()
	if slices.Contains([]string{"done", "stopped", "failed"}, o.State) {
		return true, nil
	}
	return false, fmt.Errorf("%s is the directory of a coordinator, whose last record there says that job %s is at "+
		"step %d: %s; only etcd has the present state: name it with --etcd", dir, o.Name, o.Step, o.State)
}

// outcome weighs what the job's page says against what the process that ran it has written at its end, if it has.
func outcome(o web.Outcome, last local.Ended, written bool) (state, reason string) {
	switch {
	case written && last.Code == exitDone, !written && o.State == "done":
		return "done", "all steps are done"
	case written && last.Code == exitInterrupted && o.State == "stopped", !written && o.State == "stopped":
		return "stopped", "it was interrupted, and its last step saved"
	case written && last.Code == exitInterrupted:
		return "stopped", "it was interrupted without a last checkpoint"
	case written:
		return "failed", cmp.Or(last.Reason, o.Failure)
	case o.State == "failed":
		return "failed", o.Failure
	}
	return "killed", "it left no record of its end: it was killed, or its machine stopped"
}

func (e ended) show(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, format string, args ...any) { fmt.Fprintf(t, name+"\t"+format+"\n", args...) }
	at := ""
	if !e.At.IsZero() {
		at = " at " + e.At.Local().Format(time.DateTime)
	}
	row("run", "%s is over: %s%s", e.dir, e.State, at)
	row("why", "%s", e.Reason)
	if e.Steps > 0 {
		row("step", "%d of %d, epoch %d", e.Step, e.Steps, e.Epoch)
	} else {
		row("step", "%d", e.Step)
	}
	row("workers", "%d at the end, generation %d", e.Workers, e.Generation)
	for _, f := range e.Figures {
		row("test "+job.Clean(f.Name), "%s after step %d", progress.Number(f.Name, f.Value), e.Evaluated)
	}
	if e.Weights != "" {
		row("weights", "%s", e.Weights)
	}
	if e.Checkpoint != "" {
		row("checkpoint", "%s", e.Checkpoint)
	}
	switch {
	case e.State == "done":
		row("next", "`evenweave %s --dir %s --extend` with more --epochs or --steps goes on, if the learning rate "+
			"does not depend on the length", e.program, e.dir)
	case e.Checkpoint == "":
		row("next", "`evenweave %s --dir %s` begins again: there is no checkpoint", e.program, e.dir)
	default:
		row("next", "`evenweave %s --dir %s` goes on from the newest checkpoint", e.program, e.dir)
	}
	return t.Flush()
}

// printEnded says how the run in the directory ended.
func printEnded(ctx context.Context, dir, output string, out, warn io.Writer) error {
	e := howItEnded(ctx, dir, warn)
	if output == "json" {
		return json.NewEncoder(out).Encode(e)
	}
	return e.show(out)
}
