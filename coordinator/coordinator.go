// Package coordinator leads a job: it publishes worlds, keeps checkpoints, evaluates, and ends the job. It never
// touches a gradient.
//
//	serve.go        a process's whole part: servers around a Coordinator
//	coordinator.go  campaign, and what outlives a term
//	term.go         one stretch of leadership: facts in, actions out
//	summary.go      events of the job, its steps in order
//	opening.go      how a job is created or gone on with
//	follow.go       members' reports, and probes
//	saver.go        states fetched and made durable
//	evaluator.go    test accuracy, beside training
//	server.go       checkpoints for members; the status page
//	health.go       the pages that probes ask
//	page.go         what the live page is given
//
// A coordinator may die at any moment: the steps go on, and the next one finds everything in etcd, in its directory and
// with the members.
package coordinator

import (
	"context"
	"errors"
	"fmt"
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
	// Model is opened for evaluation only. It makes the state of step 0, and measures those of checkpoints if it is an
	// evenweave.Evaluator; it may be an evenweave.Describer too. The caller closes it, after the coordinator.
	Model         evenweave.Model
	Test, HeldOut evenweave.Data // what it is evaluated on; nil: nothing
	Observer      progress.Observer
	Log           *slog.Logger

	Self job.Leader // set by Serve

	// For Serve alone.
	Endpoints []string // of etcd
	Listen    string   // host:port of the gRPC service; port 0: a free one
	Advertise string   // how members reach it; "": worked out from Listen
	HTTP      string   // host:port of the page and the status pages; "": none
	PageOnly  bool     // HTTP serves the page and nothing else, and training goes on if it cannot
	Stay      bool     // wait after the job's end
}

// Coordinator outlives its terms: it campaigns again after it has lost the leadership.
type Coordinator struct {
	Config
	client      *cluster.Client
	views       *cluster.Watcher
	store       *checkpoint.Store
	metrics     *progress.Metrics // while this process leads; only the leader writes the file
	lacking     error             // what the file lacks
	pool        proto.Pool
	halt        <-chan struct{}
	recent      *summary
	status      *statusPage
	page        *web.Page
	job         string // UUID of the job that this process has led; "" before the first term
	evaluations *evaluations
	healed      map[string]int64 // heals reported, by member
	layout      *state.Layout    // of the model's state
	condition   health
}

// ErrHalted says that the job was stopped early, its state saved.
var ErrHalted = errors.New("halted")

// ErrStandby says that a request to stop the job came to a coordinator that did not lead it.
var ErrStandby = errors.New("this coordinator does not lead: the job goes on without it; to stop the job, interrupt " +
	"the coordinator that leads (`evenweave status` names it)")

// New opens the directory. The caller must Close it.
func New(cfg Config, client *cluster.Client) (*Coordinator, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("run directory: %w; choose another with --dir", err)
	}
	layout, err := state.NewLayout(cfg.Model.Tensors())
	if err != nil {
		return nil, fmt.Errorf("the model's state: %w", err)
	}
	store, err := checkpoint.Open(filepath.Join(cfg.Dir, "checkpoints"),
		checkpoint.Options{Damaged: func(e *checkpoint.DamagedError) {
			cfg.Log.Warn("damaged checkpoint skipped", "err", e)
		}})
	if err != nil {
		return nil, err
	}
	c := &Coordinator{Config: cfg, client: client, views: cluster.NewWatcher(cfg.Log), store: store, recent: &summary{},
		status: newStatusPage(), page: web.New(), evaluations: newEvaluations(), healed: map[string]int64{}}
	c.layout = layout
	_, able := cfg.Model.(evenweave.Evaluator)
	c.Evaluate = cfg.Evaluate && able && cfg.Test != nil
	c.Observer = progress.Multi(cfg.Observer, c.status, c.page)
	return c, nil
}

// Close releases what New opened. The error says what metrics.jsonl lacks.
func (c *Coordinator) Close() error {
	c.pool.Close()
	return c.lacking
}

// openMetrics takes over metrics.jsonl, with what earlier leaders wrote, until the function that it returns is called.
func (c *Coordinator) openMetrics() (closeMetrics func(), err error) {
	if c.metrics, err = progress.OpenMetrics(c.metricsPath()); err != nil {
		return nil, err
	}
	stopKeeping := func() {}
	closeMetrics = func() {
		stopKeeping()
		c.lacking = errors.Join(c.lacking, c.metrics.Close())
		c.metrics = nil
	}
	earlier, _, err := progress.ReadMetrics(c.metricsPath())
	if err != nil {
		closeMetrics()
		return nil, err
	}
	c.evaluations.recall(earlier)
	if err := c.page.Read(c.Dir, earlier); err != nil {
		c.Log.Warn(err.Error())
	}
	stopKeeping = c.page.Keep(c.Dir, c.Log)
	return closeMetrics, nil
}

func (c *Coordinator) metricsPath() string { return filepath.Join(c.Dir, "metrics.jsonl") }

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
		t, err := c.client.Campaign(campaigning, c.Self, c.Limits.TTL)
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
		c.Log.Info("leading", "term", t.Number())
		began := time.Now()
		err = c.lead(ctx, t)
		if err == nil {
			c.condition.does(doneLeading, 0)
		}
		if !errors.Is(err, errTermOver) {
			return err
		}
		pause = pauseAfter(pause, time.Since(began), c.Limits.TTL)
		c.Log.Warn("leadership lost: campaigning again", "term", t.Number(), "in", pause, "err", err)
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
			if !c.Alone && view.Leader != nil && view.Leader.ID != c.Self.ID {
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

// emit reports an event, within a term.
func (c *Coordinator) emit(e progress.Event) {
	r := progress.Record{Time: time.Now(), Event: e}
	c.Observer.Observe(r)
	c.metrics.Observe(r)
}
