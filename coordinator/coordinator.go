// Package coordinator leads a job: it publishes worlds, keeps checkpoints, evaluates, and ends the job. It never
// touches a gradient.
//
//	serve.go        Serve: a process's whole part, servers around a Coordinator
//	coordinator.go  Coordinator: it campaigns, and holds what outlives a term
//	opening.go      how a job is created or gone on with
//	lead.go         a term is assembled, and the job's end reported
//	term.go         term: one stretch of leadership, facts in, actions out
//	roster.go       roster: what members report, and which reports count (proof.go, validate.go)
//	follow.go       dialer: members' streams, probes and states
//	saver.go        saver: states fetched and made durable; offer.go chooses them
//	evaluator.go    evaluator: the figures of durable checkpoints, beside training
//	summary.go      summary: committed steps in order
//	journal.go      journal: events, and metrics.jsonl
//	archive.go      archive: the directory of checkpoints
//	server.go       checkpoints for members
//	health.go       the pages that probes ask
//	details.go      what an evaluation shows beside its figures
//	page.go         the status page, and what the live page is given
//
// A coordinator may die at any moment: the steps go on, and the next one finds everything in etcd, in its directory and
// with the members.
package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/progress"
	"evenweave/internal/regular"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/internal/web"
	"evenweave/proto"
)

// Config says what to lead and where. Nothing in it changes while the coordinator runs.
type Config struct {
	Name            string // of the job
	Spec            job.Spec
	Backend         string
	CheckpointEvery int64
	Keep            int // checkpoints kept
	Evaluate        bool
	Extend          bool // a job of the same spec but fewer steps is given those of Spec
	Alone           bool // no other coordinator of this job can be alive: a leader that etcd still names is dead
	Limits          policy.Limits
	Dir             string
	Started         time.Time // when the run began, of which this process is a part
	// Model is opened for evaluation only. It measures the states of checkpoints if it is an evenweave.Evaluator; it
	// may be an evenweave.Describer too. The caller closes it, after the coordinator.
	Model evenweave.Model
	// Initial has the state of step 0 made outside this process, and gives its encoding to save; nil: Model makes it.
	Initial       func(ctx context.Context, j job.Job, save func(encoded io.Reader) error) error
	MetricNames   []string       // of evenweave.Task: what a step has beside its loss
	Test, HeldOut evenweave.Data // what it is evaluated on; nil: nothing
	Observer      progress.Observer
	Log           *slog.Logger

	Endpoints []string            // of etcd
	Listen    string              // of the gRPC service: host:port (0: a free one), or unix:NAME.sock beside etcd's
	Advertise string              // how members reach it; "": worked out from Listen
	HTTP      string              // host:port of the page and probes, and without TLS of all other pages; "": none
	HTTPS     string              // host:port of status, checkpoint and metrics, for roles that may see them; "": none
	Over      *security.Transport // how others are reached, and reach this process; nil: as Endpoints say, without TLS
	PageOnly  bool                // HTTP serves the page and nothing else, and training goes on if it cannot
	Stay      bool                // wait after the job's end
	MLflow    string              // address of a tracking server to report to; "": none

	self   job.Leader              // set by Serve
	traces progress.MemberObserver // likewise; nil: none are wanted
}

// Coordinator outlives its terms: it campaigns again after it has lost the leadership.
type Coordinator struct {
	Config
	client    *cluster.Client
	views     *cluster.Watcher
	archive   *archive
	journal   *journal
	evaluator *evaluator
	over      *security.Transport
	pool      proto.Pool
	halt      <-chan struct{}
	steps     *summary
	status    *statusPage
	page      *web.Page
	job       string           // UUID of the job that this process has led; "" before the first term
	healed    map[string]int64 // heals reported, by member
	rewritten []error          // what this term found unusable in etcd, to be reported
	condition health
	held      *os.File // the directory, kept from commands that change its files
}

// ErrHalted says that the job was stopped early, its state saved.
var ErrHalted = errors.New("halted")

// ErrStandby says that a request to stop the job came to a coordinator that did not lead it.
var ErrStandby = errors.New("this coordinator does not lead: the job goes on without it; to stop the job, interrupt " +
	"the coordinator that leads (`evenweave status` names it)")

// openCoordinator opens the directory. The caller must Close the coordinator.
func openCoordinator(cfg Config, client *cluster.Client) (*Coordinator, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	layout, err := state.OfJob(cfg.Model.Tensors())
	if err != nil {
		return nil, fmt.Errorf("the model's state: %w", err)
	}
	held, err := occupy(cfg.Dir)
	if err != nil {
		return nil, err
	}
	var c *Coordinator
	store, err := checkpoint.Open(filepath.Join(cfg.Dir, "checkpoints"),
		checkpoint.Options{Relink: relinkAfter, Reading: func() { c.condition.moves() },
			Damaged: func(e *checkpoint.DamagedError) {
				cfg.Log.Warn("damaged checkpoint skipped", "err", e)
			}})
	if err != nil {
		return nil, errors.Join(err, held.Close())
	}
	c = newCoordinator(cfg, client, store, layout)
	c.held = held
	return c, nil
}

// occupyWait is how long a coordinator waits for a command that changes the files of its directory.
const occupyWait = 10 * time.Second

// occupy keeps such commands out of a directory, until what it returns is closed. Other coordinators may use it too. A
// file system without locks keeps nothing out.
func occupy(dir string) (*os.File, error) {
	held, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	if regular.Share(held, occupyWait) == regular.ErrLocked {
		_ = held.Close()
		return nil, fmt.Errorf("run directory %s is in use by a command that changes its files, `checkpoint prune` "+
			"for one: start again when it has ended", dir)
	}
	return held, nil
}

// newCoordinator assembles the parts.
func newCoordinator(cfg Config, client *cluster.Client, store *checkpoint.Store, layout *state.Layout) *Coordinator {
	c := &Coordinator{Config: cfg, client: client, views: cluster.NewWatcher(cfg.Log),
		steps:  &summary{metrics: cfg.MetricNames},
		status: newStatusPage(), page: web.New(), healed: map[string]int64{}, over: client.Transport()}
	c.pool.Options, c.pool.Stale = c.over.Options(security.Worker), security.OtherKey
	c.journal = &journal{dir: cfg.Dir, log: cfg.Log, observer: progress.Multi(cfg.Observer, c.status, c.page)}
	if m, has := cfg.Model.(evenweave.Scheduler); has {
		c.journal.rate = m.LearningRate
	}
	c.archive = &archive{Store: store, layout: layout, samples: cfg.Spec.Samples, keep: cfg.Keep, log: cfg.Log}
	c.evaluator = &evaluator{evaluations: newEvaluations(), layout: layout, test: cfg.Test, heldOut: cfg.HeldOut,
		entries: c.archive, events: c.journal, details: detailed{c.page, c.journal}, log: cfg.Log}
	if m, able := cfg.Model.(evaluated); able && cfg.Evaluate && cfg.Test != nil {
		c.evaluator.model = m
	}
	c.archive.spared = c.evaluator.spared
	return c
}

// Close releases what openCoordinator has opened. The error says what metrics.jsonl lacks.
func (c *Coordinator) Close() error {
	c.pool.Close()
	_ = c.held.Close() // it was only locked
	return c.journal.lacking
}

// Run leads until the job is done (nil), halted (ErrHalted), failed, or ctx ends. When halt is closed, the leader stops
// the job after its current step; a coordinator that stands by returns ErrStandby as soon as it sees another leader.
// When ctx ends, the leader resigns, and the job goes on without a coordinator.
func (c *Coordinator) Run(ctx context.Context, halt <-chan struct{}) error {
	c.halt = halt
	watching, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.views.Run(watching, c.client)
	}()
	defer func() { stop(); <-done }()
	campaigning, withdraw := c.standby(ctx)
	defer withdraw()
	pause := time.Duration(0)
	for {
		c.condition.does("campaigning", 0)
		t, err := c.client.Campaign(campaigning, c.self, c.Limits.TTL)
		if err != nil && campaigning.Err() == nil {
			c.Log.Warn("cannot lead yet", "err", err)
			select {
			case <-campaigning.Done():
			case <-time.After(500 * time.Millisecond):
			}
			continue
		}
		if err != nil {
			return context.Cause(campaigning)
		}
		began := time.Now()
		c.condition.does(opening, openingLimit)
		err = c.lead(ctx, t)
		if err == nil {
			c.condition.does(doneLeading, 0)
		}
		if !errors.Is(err, errTermOver) {
			return err
		}
		pause = pauseAfter(pause, time.Since(began), c.Limits.TTL)
		c.Log.Warn("leadership lost: campaigning again", "in", pause, "err", err)
		select {
		case <-campaigning.Done():
		case <-time.After(pause):
		}
	}
}

// pauseAfter is how long to wait for the next campaign, given how long the last term lasted and the pause before it.
// What ends a term at once, for example an unreadable record in etcd, would end the next one too.
func pauseAfter(pause, lasted, ttl time.Duration) time.Duration {
	if lasted >= ttl {
		return 0
	}
	return min(max(2*pause, 250*time.Millisecond), 10*time.Second)
}

// standby returns a context for campaigning. After a request to halt, it ends when another coordinator leads, or else
// when a dead leader's lease is over.
func (c *Coordinator) standby(ctx context.Context) (campaigning context.Context, withdraw func()) {
	campaigning, cancel := context.WithCancelCause(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		select {
		case <-c.halt:
		case <-campaigning.Done():
			return
		}
		limit := time.After(2 * c.Limits.TTL)
		for {
			view, changed := c.views.View()
			if !c.Alone && view.Leader != nil && view.Leader.ID != c.self.ID {
				cancel(ErrStandby)
				return
			}
			select {
			case <-changed:
			case <-limit:
				cancel(ErrStandby)
				return
			case <-campaigning.Done():
				return
			}
		}
	}()
	return campaigning, func() { cancel(nil); <-done }
}
