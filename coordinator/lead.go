package coordinator

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
)

// lead runs one term to its end: nil when the job is done, errTermOver when the leadership is lost. It resigns as soon
// as the term is over or ctx ends, and then waits for disks: one that hangs keeps no other from leading.
func (c *Coordinator) lead(ctx context.Context, etcd *cluster.Term) error {
	defer c.archive.Relink()
	resign := sync.OnceFunc(func() { etcd.Resign(context.WithoutCancel(ctx)) })
	defer resign()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	lost := context.AfterFunc(etcd.Context(), func() { cancel(errTermOver) })
	defer lost()
	context.AfterFunc(ctx, resign)

	number, err := c.archive.Term(etcd.Number())
	if err != nil {
		return err
	}
	c.Log.Info("leading", "term", number)
	j, step, err := c.open(ctx, etcd, number)
	if err != nil {
		return err
	}
	view, err := c.client.Read(ctx)
	if err != nil {
		return errors.Join(errTermOver, err)
	}
	if view.Job == nil || view.Job.UUID != j.UUID {
		return c.lostRecord(j.UUID)
	}
	closeJournal, err := c.openJournal(ctx)
	if err != nil && ctx.Err() != nil {
		return context.Cause(ctx)
	} else if err != nil {
		return err
	}
	defer closeJournal()
	c.condition.moves()
	c.begin(j, step)
	c.warnOfRecords()
	c.warnOfLoss(view, step)
	c.steps.lead(step)
	c.evaluator.missed(j.Spec)
	stop, evaluated := c.evaluator.start(ctx, number)
	defer func() {
		stop()
		resign() // another may lead while this process is still busy compiling, say
		<-evaluated
	}()
	newest, err := c.archive.Durable(ctx)
	if err != nil {
		return err
	}
	c.condition.saved(*newest)
	if d := view.Done; d != nil {
		switch {
		case d.Failure != "":
			return fmt.Errorf("the job failed before: %s; its checkpoints are in %s", d.Failure, c.Dir)
		case d.Complete && step >= d.Step:
			return c.conclude(ctx, *newest, *d)
		}
		if err := etcd.Reopen(ctx, view); err != nil {
			return errors.Join(errTermOver, err)
		}
	}
	t := c.newTerm(etcd, number, view, *newest)
	if step >= j.Spec.TotalSteps() { // complete on disk, not yet in etcd
		err = t.finish(ctx, "", true)
	} else {
		defer t.tasks.Wait()
		defer cancel(nil)
		err = t.run(ctx)
	}
	if err != nil {
		return err
	}
	return c.conclude(ctx, t.saver.durable, *t.done)
}

// newTerm assembles a term that begins with a view of etcd and the newest durable checkpoint.
func (c *Coordinator) newTerm(etcd records, number int64, view cluster.View, newest checkpoint.Entry) *term {
	uuid := view.Job.UUID
	t := &term{
		records: etcd, views: views{c.views.View, c.client.Read},
		policy:  policy.New(uuid, c.self.Address, newest.Manifest.Step, c.Limits),
		members: newRoster(view, c.healed, c.journal),
		dialer: &dialer{pool: &c.pool, over: c.over, job: uuid, layout: c.archive.layout, metrics: len(c.MetricNames),
			samples: c.archive.samples, keys: func(member string) []string { return c.views.Now().Keys(member) },
			quiet: quietFor},
		evaluator: c.evaluator, events: c.journal, page: pages{c.page, c.status, c.traces}, steps: c.steps,
		condition: &c.condition, sealedBy: c.over.Registered(), inputs: make(inbox, 256), tasks: &sync.WaitGroup{},
		halt: c.halt, lost: c.lostRecord,
		log: c.Log, uuid: uuid,
	}
	t.saver = &saver{
		members: t.members, steps: c.steps, source: t.dialer, sink: c.archive, journal: c.journal, inputs: t.inputs,
		tasks: t.tasks, log: c.Log, term: number, began: time.Now(), durable: newest,
		said: map[string]time.Time{}, avoid: map[string]time.Time{}, forged: map[string]bool{},
		doubted: map[int64]bool{},
	}
	return t
}

// openJournal takes over what earlier leaders recorded, until the function that it returns is called.
func (c *Coordinator) openJournal(ctx context.Context) (closeJournal func(), err error) {
	show, shown, err := c.page.Recall(c.Dir)
	if err != nil {
		c.Log.Warn(err.Error())
	}
	defer shown()
	c.condition.moves()
	err = c.journal.open(ctx, func(r progress.Record) {
		c.condition.moves()
		c.evaluator.recall(r)
		c.steps.recall(r)
		show(r)
	})
	if err != nil {
		return nil, err
	}
	stopKeeping := c.page.Keep(c.Dir, c.Log)
	return func() { stopKeeping(); c.journal.close() }, nil
}

// begin reports what is trained, once.
func (c *Coordinator) begin(j job.Job, step int64) {
	if c.job != "" {
		return
	}
	c.job = j.UUID
	c.steps.begin(step)
	plan, recipe := j.Spec.Plan(), ""
	if _, ok := j.Spec.Options["recipe"]; ok { // readers of events know this one by its name
		recipe = j.Spec.Options.Text("recipe")
	}
	c.journal.emit(progress.Start{
		Job: c.Name, UUID: j.UUID, Model: j.Spec.Task, Recipe: recipe, Seed: j.Spec.Seed, Backend: j.Backend,
		Workers: c.Limits.Expect, Steps: int(j.Spec.TotalSteps()),
		Epochs:        int((j.Spec.TotalSteps() + plan.StepsPerEpoch() - 1) / plan.StepsPerEpoch()),
		StepsPerEpoch: int(plan.StepsPerEpoch()), Samples: j.Spec.Samples,
		GlobalBatch: j.Spec.GlobalBatch, MicroBatch: j.Spec.MicroBatch, ResumedFrom: int(step), Layers: layers(c.Model),
	})
}

// layers is the table of a model that describes itself.
func layers(m evenweave.Model) []evenweave.Layer {
	if d, ok := m.(evenweave.Describer); ok {
		return d.Layers()
	}
	return nil
}

// conclude waits for the running evaluations, unless interrupted, and reports the end. It returns nil for a complete
// job, ErrHalted for a stopped one.
func (c *Coordinator) conclude(ctx context.Context, last checkpoint.Entry, d job.Done) error {
	m := last.Manifest
	c.condition.does("concluding", 0)
	if c.evaluator.model != nil && d.Complete {
		_, idle := c.evaluator.waiting()
		select {
		case <-idle:
		case <-c.halt:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	workers, skipped, rate := c.steps.total()
	e := progress.Done{
		Step: int(m.Step), Epoch: int(m.Epoch), Workers: workers, Generation: uint64(d.Generation),
		WeightsSHA256: m.WeightsSHA256, Fingerprint: m.Fingerprint,
		SamplesPerSecond: rate, WallSeconds: time.Since(c.Started).Seconds(), Backend: c.Backend,
		Complete: d.Complete, Checkpoint: last.Path, Skipped: skipped,
	}
	if ev, ok := c.evaluator.at(m.Step); ok {
		e.Figures = ev.Figures
	}
	if n := c.evaluator.failures(); n > 0 {
		c.journal.emit(progress.Warning{Message: fmt.Sprintf("evaluations that failed: %d; a warning said why; mend "+
			"the cause, then `evenweave evaluate --dir %s` measures the newest checkpoint", n, c.Dir)})
	}
	c.journal.emit(e)
	if !d.Complete {
		return ErrHalted
	}
	return nil
}

// lostRecord explains what to do when etcd answers and does not know the job any more.
func (c *Coordinator) lostRecord(uuid string) error {
	return fmt.Errorf("job %s is not in etcd any more: its data was lost or replaced; start coordinator and workers "+
		"again on the directory %s to go on from the newest checkpoint there; processes of the old job are fenced by "+
		"its UUID", uuid, c.Dir)
}
