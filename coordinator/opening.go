package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/uuid"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/progress"
	"evenweave/internal/regular"
	"evenweave/internal/security"
	"evenweave/internal/state"
)

// open finds the job in etcd or creates it, and checks it against the directory and the spec. It returns the job and
// its newest durable step.
//
//	etcd has the job                         go on with it, from an older checkpoint if the newest is damaged
//	                                         (with --extend and more to do: the record is extended)
//	etcd is empty, the directory is not      go on from the newest checkpoint, in a new job record with a new UUID
//	both are empty                           step 0: the only place where weights are initialised
//	the world's record or the end's is bad   the job goes on as if they were lost: see unknownWorld
//	the job's record is bad                  an error that names it, at every try
func (c *Coordinator) open(ctx context.Context, t *cluster.Term, number int64) (job.Job, int64, error) {
	view, err := c.client.ReadToLead(ctx)
	if errors.Is(err, security.ErrNotSealed) {
		return job.Job{}, 0, err
	}
	if err != nil {
		return job.Job{}, 0, errors.Join(errTermOver, err)
	}
	newest, err := c.archive.Durable(ctx)
	if err != nil && !errors.Is(err, checkpoint.ErrNone) {
		return job.Job{}, 0, err
	}
	if newest != nil {
		if err := c.archive.fits(*newest); err != nil {
			return job.Job{}, 0, err
		}
	}
	if view.Job == nil && c.job != "" {
		return job.Job{}, 0, c.lostRecord(c.job)
	}
	if view.Job == nil {
		return c.create(ctx, t, number, view, newest)
	}
	if view.World == nil && view.Job.Generation > 0 {
		view.World = unknownWorld(view)
	}
	if newest == nil {
		return job.Job{}, 0, c.lacks(recorded(view), "none")
	}
	if err := c.sameJob(*newest, view.Job.Spec); err != nil {
		return job.Job{}, 0, err
	}
	spec, err := c.goOn(view.Job.Spec, newest.Step, fmt.Sprintf("job %q in etcd was created with", c.Name),
		"use the same flags, or "+c.elsewhere())
	if err != nil {
		return job.Job{}, 0, err
	}
	if lost := recorded(view); newest.Manifest.Step < lost && !c.damaged(lost) && !standing(view) {
		return job.Job{}, 0, c.lacks(lost, fmt.Sprintf("step %d", newest.Manifest.Step))
	}
	j := *view.Job
	if j.Backend != c.Backend {
		return job.Job{}, 0, fmt.Errorf("job %q runs on backend %q, this coordinator has %q: another backend gives "+
			"other bits; use --backend %s", c.Name, j.Backend, c.Backend, j.Backend)
	}
	j.Spec, j.CheckpointEvery = spec, c.CheckpointEvery
	if spec.TotalSteps() > view.Job.Spec.TotalSteps() {
		err = t.Extend(ctx, view, j)
	} else {
		err = t.ReplaceJob(ctx, view, j) // if nothing has changed, too: this leader's seal is on all records then
	}
	if err != nil {
		return job.Job{}, 0, errors.Join(errTermOver, err)
	}
	c.rewritten = view.SpoiltRecords()
	return j, newest.Manifest.Step, nil
}

// unknownWorld follows on a world whose record is lost or cannot be used. It has no peers: the members of the one
// before finish their step and rest. Any registered member may have been in that, so each one's state counts in the
// next.
func unknownWorld(view cluster.View) *job.World {
	w := &job.World{Job: view.Job.UUID, Generation: view.Job.Generation + 1, Since: view.Job.Generation,
		DurableStep: view.Job.DurableStep, Reason: "the world's record was lost"}
	for _, m := range view.Members { // oldest first
		w.Away = append(w.Away, m.Peer())
	}
	w.Fit(mostOfWorld)
	return w
}

// mostOfWorld bytes of a world leave room for the record's seal, which has a chain of certificates.
const mostOfWorld = job.MaxWorldBytes - 64<<10

// recorded is the newest step that etcd's records call durable.
func recorded(view cluster.View) (step int64) {
	if view.Job != nil {
		step = view.Job.DurableStep
	}
	if view.World != nil {
		step = max(step, view.World.DurableStep)
	}
	if view.Done != nil {
		step = max(step, view.Done.Step)
	}
	return step
}

// lacks says that this is not the directory of the job.
func (c *Coordinator) lacks(lost int64, newest string) error {
	return fmt.Errorf("job %q has a durable checkpoint of step %d in etcd's records that the directory %s lacks "+
		"(newest here: %s): use the directory that the job was started with", c.Name, lost, c.Dir, newest)
}

// damaged says whether the directory has had the checkpoint of that step, or a newer one: the file is there, and not
// valid.
func (c *Coordinator) damaged(step int64) bool {
	entries, err := c.archive.List()
	return err == nil && len(entries) > 0 && entries[0].Step >= step
}

// standing says whether a process is there that is in the present world, or may have been in one whose record is lost:
// it may hold newer states than the directory does.
func standing(view cluster.View) bool {
	w := view.World
	if w == nil {
		return false
	}
	peers := w.Peers
	if len(peers) == 0 {
		peers = w.Away
	}
	return slices.ContainsFunc(view.Members, func(m job.Member) bool { return slices.Contains(peers, m.Peer()) })
}

// warnOfRecords says which records this leader has found unusable and written again.
func (c *Coordinator) warnOfRecords() {
	for _, err := range c.rewritten {
		if bad, ok := errors.AsType[*cluster.BadRecord](err); ok {
			c.journal.emit(progress.Warning{Message: fmt.Sprintf("etcd key %s could not be used, and is written "+
				"again: %s", job.Clean(bad.Key), job.Clean(bad.Cause.Error()))})
		}
	}
	c.rewritten = nil
}

// warnOfLoss says what a lost checkpoint means. The next world's record names the older one, so that members which need
// a checkpoint ask for that.
func (c *Coordinator) warnOfLoss(view cluster.View, step int64) {
	lost := recorded(view)
	if step >= lost {
		return
	}
	then := fmt.Sprintf("training goes back to step %d", step)
	if standing(view) {
		then = fmt.Sprintf("members that hold newer states go on from them, and the next due one is saved; if none "+
			"does, training goes back to step %d", step)
	}
	c.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: that of step %d is damaged or gone; the newest "+
		"valid one in %s is of step %d: %s", lost, c.Dir, step, then)})
}

// specOf is what the job trained that saved a checkpoint.
func specOf(e checkpoint.Entry) (spec job.Spec, err error) {
	if spec, err = job.ReadSpec(e.Manifest.Spec); err != nil {
		err = fmt.Errorf("checkpoint %s: %w", e.Path, err)
	}
	return spec, err
}

// sameJob refuses a directory whose newest checkpoint belongs to another job than etcd's record.
func (c *Coordinator) sameJob(newest checkpoint.Entry, recorded job.Spec) error {
	spec, err := specOf(newest)
	if err == nil && !recorded.Continues(spec) {
		err = fmt.Errorf("directory %s holds a run of another spec than job %q in etcd: %s; use the directory that "+
			"the job was started with, or %s",
			c.Dir, c.Name, strings.Join(recorded.Diff(spec), "; "), c.elsewhere())
	}
	return err
}

// elsewhere is what another job needs: of a local run all is in its directory, etcd's data too.
func (c *Coordinator) elsewhere() string {
	if c.Alone {
		return "another --dir"
	}
	return "another --job and --dir"
}

// initialise makes the state of step 0 durable. It is never whole in this process's memory if Config.Initial makes it.
func (c *Coordinator) initialise(ctx context.Context, j job.Job, term int64) error {
	c.condition.does("making the state of step 0", 0)
	save := func(s state.Stream) error {
		c.condition.does(opening, openingLimit)
		image := s.Image
		s.Image = func(w io.Writer) error { return image(moving{w, c.condition.moves}) }
		_, err := c.archive.write(ctx, j, term, s)
		return err
	}
	if c.Initial == nil {
		s, err := probe.Initial(c.Model, c.archive.layout, j.Spec.Seed, j.Spec.Samples)
		if err != nil {
			return err
		}
		return save(s)
	}
	return c.Initial(ctx, j, func(encoded io.Reader) error {
		s, err := state.Encoded(encoded, c.archive.layout, j.Spec.Samples)
		if err == nil && s.Step != 0 {
			err = fmt.Errorf("it is of step %d", s.Step)
		}
		if err != nil {
			return fmt.Errorf("the state of step 0: %w", err)
		}
		return save(s)
	})
}

// create writes a new job record, on the newest checkpoint if there is one, else on fresh weights.
func (c *Coordinator) create(ctx context.Context, t *cluster.Term, number int64, view cluster.View,
	newest *checkpoint.Entry) (job.Job, int64, error) {
	j := job.Job{UUID: uuid.NewString(), Spec: c.Spec, Backend: c.Backend, CheckpointEvery: c.CheckpointEvery}
	step := int64(0)
	if newest != nil {
		recorded, err := specOf(*newest)
		if err != nil {
			return job.Job{}, 0, err
		}
		if j.Spec, err = c.goOn(recorded, newest.Step, fmt.Sprintf("directory %s holds a run of", c.Dir),
			"use the same flags to resume it, or another --dir to start afresh"); err != nil {
			return job.Job{}, 0, err
		}
		j.Numerics, j.NumericsParts = newest.Manifest.Numerics, newest.Manifest.NumericsParts
		step = newest.Manifest.Step
	} else {
		// What another run left under this name is not this one's curve.
		err := regular.Rename(c.journal.path(), filepath.Join(c.Dir, "metrics-before-"+j.UUID+".jsonl"))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return job.Job{}, 0, err
		}
		if err := c.initialise(ctx, j, number); err != nil {
			return job.Job{}, 0, err
		}
	}
	if err := t.CreateJob(ctx, view, j); err != nil {
		return job.Job{}, 0, errors.Join(errTermOver, err)
	}
	return j, step, nil
}
