package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave/checkpoint"
	"evenweave/coordinator"
	"evenweave/internal/job"
	"evenweave/internal/local"
)

func checkpointCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "checkpoint", Short: "List, show, verify and prune the checkpoints of a run",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(
		checkpointsCommand("list", "List the checkpoints of a run, newest first, without reading them wholly", listAll),
		checkpointsCommand("show [FILE]", "Show what a checkpoint holds: the newest valid one, or a file", showOne),
		checkpointsCommand("verify [FILE...]", "Read checkpoints to the last byte and name what is damaged", verifyAll),
		pruneCommand())
	return cmd
}

// checkpoints is one call of a command on them.
type checkpoints struct {
	dir   string
	files []string
	json  bool
	out   io.Writer
	warn  io.Writer
}

func checkpointsCommand(use, short string, do func(context.Context, checkpoints) error) *cobra.Command {
	cmd := &cobra.Command{Use: use, Short: short}
	if cmd.Name() == use {
		cmd.Args = noArgs
	}
	var c checkpoints
	cmd.Flags().StringVar(&c.dir, "dir", "./run", "run directory")
	output := outputFlag(cmd)
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, args []string) error {
		c.files, c.json, c.out, c.warn = args, *output == "json", cmd.OutOrStdout(), cmd.ErrOrStderr()
		return do(ctx, c)
	})
	return cmd
}

func (c checkpoints) folder() string { return filepath.Join(c.dir, "checkpoints") }

func (c checkpoints) store() (*checkpoint.Store, error) {
	return checkpoint.Open(c.folder(), checkpoint.Options{Damaged: func(e *checkpoint.DamagedError) {
		fmt.Fprintln(c.warn, "skipped:", job.Clean(e.Error()))
	}})
}

// entries are the files that the directory holds; there must be one.
func (c checkpoints) entries() ([]checkpoint.Entry, error) {
	s, err := c.store()
	if err != nil {
		return nil, err
	}
	all, err := s.List()
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("no checkpoint in %s: train first, or name another directory with --dir", c.dir)
	}
	return all, err
}

// checkpointLine is what -o json prints of a file.
type checkpointLine struct {
	Event         string     `json:"event"`
	Time          time.Time  `json:"time"`
	Path          string     `json:"path"`
	Bytes         int64      `json:"bytes,omitempty"`
	Step          int64      `json:"step"`
	Epoch         int64      `json:"epoch"`
	Term          int64      `json:"term"`
	Task          string     `json:"task,omitempty"`
	Created       *time.Time `json:"created,omitempty"`
	WeightsSHA256 string     `json:"weights_sha256,omitempty"`
	Complete      bool       `json:"complete,omitempty"`
	Best          bool       `json:"best,omitempty"`
	Valid         *bool      `json:"valid,omitempty"` // not there: it was not read wholly
	Error         string     `json:"error,omitempty"`
	Damage        []damage   `json:"damage,omitempty"`
	// of show
	Job         string              `json:"job,omitempty"`
	Numerics    string              `json:"numerics,omitempty"`
	Fingerprint string              `json:"fingerprint,omitempty"`
	Spec        json.RawMessage     `json:"spec,omitempty"`
	Tensors     []checkpoint.Tensor `json:"tensors,omitempty"`
}

// damage is a damaged block of a file's tensors.
type damage struct {
	Block    int64  `json:"block"`
	Blocks   int64  `json:"blocks"`
	First    int64  `json:"first_byte"`
	Last     int64  `json:"last_byte"`
	Tensor   string `json:"tensor"`
	Expected string `json:"expected"`
	Found    string `json:"found"`
}

// lineOf describes a file by its manifest, or by why that cannot be read.
func lineOf(event, path string, m checkpoint.Manifest, err error) checkpointLine {
	l := checkpointLine{Event: event, Time: time.Now(), Path: path}
	if info, err := os.Stat(path); err == nil {
		l.Bytes = info.Size()
	}
	if err != nil {
		l.Error, l.Damage = err.Error(), damages(err)
		return l
	}
	l.Step, l.Epoch, l.Term, l.Task, l.Created = m.Step, m.Epoch, m.Term, m.Task, &m.Created
	l.WeightsSHA256, l.Complete = m.WeightsSHA256, m.Complete
	return l
}

// damages are the damaged blocks that an error names.
func damages(err error) (all []damage) {
	if many, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range many.Unwrap() {
			all = append(all, damages(e)...)
		}
		return all
	}
	if b, ok := err.(*checkpoint.BlockError); ok {
		return []damage{{b.Block, b.Blocks, b.First, b.Last, b.Tensor, fmt.Sprintf("%x", b.Expected),
			fmt.Sprintf("%x", b.Found)}}
	}
	if next := errors.Unwrap(err); next != nil {
		return damages(next)
	}
	return nil
}

func listAll(_ context.Context, c checkpoints) error {
	entries, err := c.entries()
	if err != nil {
		return err
	}
	best, _ := os.Readlink(filepath.Join(c.folder(), "best"))
	table := tabwriter.NewWriter(c.out, 0, 0, 2, ' ', 0)
	if !c.json {
		fmt.Fprintln(table, "STEP\tEPOCH\tTERM\tBYTES\tCREATED\tWEIGHTS\tFILE")
	}
	for _, e := range entries {
		m, _, err := checkpoint.Peek(e.Path)
		l := lineOf("checkpoint", e.Path, m, err)
		l.Step, l.Term, l.Best = e.Step, e.Term, filepath.Base(e.Path) == best
		if c.json {
			if err := json.NewEncoder(c.out).Encode(l); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			fmt.Fprintf(table, "%d\t\t%d\t%d\t\t\t%s  %s\n", l.Step, l.Term, l.Bytes, filepath.Base(l.Path),
				job.Clean(l.Error))
			continue
		}
		fmt.Fprintf(table, "%d\t%d\t%d\t%d\t%s\t%s\t%s%s\n", l.Step, l.Epoch, l.Term, l.Bytes,
			m.Created.Local().Format(time.DateTime), job.Clean(m.WeightsSHA256[:min(12, len(m.WeightsSHA256))]),
			filepath.Base(l.Path), marks(l))
	}
	return table.Flush()
}

func marks(l checkpointLine) (marks string) {
	if l.Complete {
		marks += "  (the job's end)"
	}
	if l.Best {
		marks += "  (best)"
	}
	return marks
}

func showOne(ctx context.Context, c checkpoints) (err error) {
	var path string
	switch len(c.files) {
	case 0:
		path, err = newestCheckpoint(ctx, c.dir, c.warn)
	case 1:
		path = c.files[0]
	default:
		err = usagef("show takes one file, got %d", len(c.files))
	}
	if err != nil {
		return err
	}
	m, err := checkpoint.Verify(ctx, path)
	if err != nil {
		return err
	}
	l := lineOf("checkpoint", path, m, nil)
	if c.json {
		valid := true
		l.Valid, l.Job, l.Numerics, l.Fingerprint = &valid, m.Job, m.Numerics, m.Fingerprint
		l.Spec, l.Tensors = m.Spec, m.Tensors
		return json.NewEncoder(c.out).Encode(l)
	}
	return printCheckpoint(c.out, l, m)
}

func printCheckpoint(w io.Writer, l checkpointLine, m checkpoint.Manifest) error {
	out := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, row := range [][2]string{
		{"file", l.Path + marks(l)}, {"bytes", fmt.Sprint(l.Bytes)}, {"task", m.Task}, {"job", m.Job},
		{"step", fmt.Sprintf("%d (epoch %d), saved in term %d", m.Step, m.Epoch, m.Term)},
		{"created", m.Created.Local().Format(time.DateTime)}, {"weights sha256", m.WeightsSHA256},
		{"fingerprint", m.Fingerprint}, {"numerics", m.Numerics},
	} {
		fmt.Fprintf(out, "%s\t%s\n", row[0], job.Clean(row[1]))
	}
	if spec, err := job.ReadSpec(m.Spec); err != nil {
		fmt.Fprintf(out, "cannot be used\t%s\n", job.Clean(err.Error()))
	} else {
		fmt.Fprintf(out, "data\t%s (%d samples)\n", job.Clean(spec.Data), spec.Samples)
		fmt.Fprintf(out, "seed\t%d\nglobal batch\t%d in micro-batches of %d\nlength\t%d epochs, %d steps\n", spec.Seed,
			spec.GlobalBatch, spec.MicroBatch, spec.Epochs, spec.TotalSteps())
		if spec.OnNonfinite != "" {
			fmt.Fprintf(out, "on nonfinite\t%s\n", job.Clean(spec.OnNonfinite))
		}
		for _, name := range slices.Sorted(maps.Keys(spec.Options)) {
			fmt.Fprintf(out, "option %s\t%s\n", job.Clean(name), job.Clean(string(spec.Options[name])))
		}
	}
	fmt.Fprintln(out, "\nTENSOR\tTYPE\tSHAPE\tROLE")
	for _, t := range m.Tensors {
		fmt.Fprintf(out, "%s\t%s\t%v\t%s\n", job.Clean(t.Name), t.Type, t.Shape, t.Role)
	}
	return out.Flush()
}

// verifyAll goes through all files, whatever is wrong with one.
func verifyAll(ctx context.Context, c checkpoints) error {
	files := c.files
	if len(files) == 0 {
		entries, err := c.entries()
		if err != nil {
			return err
		}
		for _, e := range entries {
			files = append(files, e.Path)
		}
	}
	damaged := 0
	for _, path := range files {
		m, err := checkpoint.Verify(ctx, path)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		valid := err == nil
		if !valid {
			damaged++
		}
		switch {
		case c.json:
			l := lineOf("checkpoint", path, m, err)
			l.Valid = &valid
			if err := json.NewEncoder(c.out).Encode(l); err != nil {
				return err
			}
		case valid:
			fmt.Fprintf(c.out, "ok       %s  step %d, weights %s\n", path, m.Step, job.Clean(m.WeightsSHA256))
		default:
			for _, line := range job.Lines("damaged  " + err.Error()) {
				fmt.Fprintln(c.out, line)
			}
		}
	}
	if damaged > 0 {
		return fmt.Errorf("%d of %d checkpoints cannot be used", damaged, len(files))
	}
	return nil
}

func pruneCommand() *cobra.Command {
	var keep int
	cmd := checkpointsCommand("prune", "Remove all but the newest valid checkpoints of a run that is not going on",
		func(ctx context.Context, c checkpoints) error {
			if keep < 1 {
				return usagef("--keep %d: must be at least 1", keep)
			}
			return prune(ctx, c, keep)
		})
	cmd.Flags().IntVar(&keep, "keep", 3, "valid checkpoints to keep")
	cmd.Long = `Removes the checkpoints that are older than the newest valid ones that --keep counts, and says which; the one that
did best on held-out samples stays. It verifies what it keeps, removes nothing if there are fewer valid ones, and never
removes what is newer than the newest valid one. It is refused while a run, or a coordinator of this machine, is live
in --dir: that prunes by itself.`
	return cmd
}

func prune(ctx context.Context, c checkpoints, keep int) (err error) {
	before, err := c.entries()
	if err != nil {
		return err
	}
	release, err := local.Hold(c.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, release()) }()
	store, err := c.store()
	if err != nil {
		return err
	}
	best, err := c.best(before)
	if err != nil {
		return err
	}
	removed, failed := store.Prune(ctx, math.MaxInt64, keep, best...)
	for _, path := range removed {
		if c.json {
			err = json.NewEncoder(c.out).Encode(map[string]any{"event": "removed", "time": time.Now(), "path": path})
		} else {
			_, err = fmt.Fprintln(c.out, "removed", path)
		}
		if err != nil {
			return errors.Join(failed, err)
		}
	}
	fmt.Fprintf(c.warn, "removed %d of %d checkpoints in %s\n", len(removed), len(before), c.folder())
	return failed
}

// best are the steps of the checkpoints that did best on held-out samples: by the run's record, and by the link, which
// a process that was killed has left as it was.
func (c checkpoints) best(all []checkpoint.Entry) (steps []int64, err error) {
	step, ok, err := coordinator.Best(c.dir)
	if err != nil {
		return nil, err
	}
	if ok {
		steps = append(steps, step)
	}
	name, _ := os.Readlink(filepath.Join(c.folder(), "best"))
	for _, e := range all {
		if filepath.Base(e.Path) == name {
			steps = append(steps, e.Step)
		}
	}
	return steps, nil
}
