package worker

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"evenweave"
	"evenweave/allreduce/grpclink"
	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/probe"
	"evenweave/internal/security"
	"evenweave/internal/serving"
	"evenweave/internal/state"
	"evenweave/proto"
)

// Config is how one worker process takes part in a job.
type Config struct {
	Endpoints []string
	Name      string // of the job
	ID        string
	// for peers and the coordinator: host:port (0: a free one), or unix:NAME.sock beside etcd's
	Listen    string
	Advertise string // the address for them; "": derived from Listen
	HTTP      string // host:port of the probes, and without TLS of metrics; "": none
	HTTPS     string // host:port of metrics, for roles that may see them; "": none
	// how others are reached, and reach this process; nil: as Endpoints say, without TLS
	Over        *security.Transport
	Parallelism int
	Stay        bool          // wait after the job's end
	Grace       time.Duration // how long leaving may take
	TTL         time.Duration // of the registration
	Observer    Observer      // may be nil
	Faults      bool          // SIGUSR1 damages the state: for `evenweave chaos`
	Metrics     http.Handler  // served as /metrics; may be nil
	MetricNames []string      // of the task
	CatchUpFrom int64         // of Loop
	// Open loads model and training data of a job, compiled and warm, and returns what the golden probe gives.
	Open func(ctx context.Context, j job.Job) (Opened, error)
	Log  *slog.Logger
}

// Opened is what Config.Open returns.
type Opened struct {
	Model    evenweave.Model
	Data     evenweave.Data
	Numerics probe.Golden
}

// process is a worker process while Serve runs.
type process struct {
	Config
	client *cluster.Client
	over   *security.Transport
	views  *cluster.Watcher
	page   atomic.Pointer[http.Handler] // what the pages show now
	tasks  sync.WaitGroup
	cancel context.CancelCauseFunc
}

// Serve is a worker process's whole part in a job: servers, registration and training. It returns when the job is done
// or ctx ends. When leaving is closed, the member leaves in good order.
func Serve(ctx context.Context, cfg Config, leaving <-chan struct{}) error {
	client, err := cluster.DialOver(cfg.Over, cfg.Endpoints, cfg.Name)
	if err != nil {
		return err
	}
	defer client.Close() // last: the deregistration uses it
	p := &process{Config: cfg, client: client, over: client.Transport(), views: cluster.NewWatcher(cfg.Log)}
	ctx, p.cancel = context.WithCancelCause(ctx)
	defer p.tasks.Wait()
	defer p.cancel(nil)

	p.views.Member = p.ID
	p.tasks.Go(func() { p.views.Run(ctx, client) })
	if keys := p.over.Keys(); keys != nil {
		keys.Wait()
		p.tasks.Go(func() { keys.Watch(ctx, p.Log) })
	}
	pages := &serving.Pages{Fail: p.cancel}
	defer pages.Close()
	if err := p.servePages(pages); err != nil { // from the start: a worker that waits for its job is healthy too
		return err
	}
	j, err := p.awaitJob(ctx, leaving)
	if err != nil || j == nil {
		return err
	}
	opened, err := p.open(ctx, *j, leaving)
	if err != nil || opened.Model == nil {
		return err
	}
	return p.train(ctx, *j, opened, leaving)
}

// train registers this process as a member, serves its peers and trains.
func (p *process) train(ctx context.Context, j job.Job, o Opened, leaving <-chan struct{}) error {
	listener, err := p.over.Listen(p.Listen)
	if err != nil {
		return fmt.Errorf("listening for peers: %w; choose another --listen", err)
	}
	address, err := cluster.Advertised(p.Advertise, listener.Addr(), p.Endpoints, p.Log)
	if err != nil {
		return err
	}
	host, _ := os.Hostname()
	membership := cluster.NewMembership(p.client, job.Member{
		ID: p.ID, Job: j.UUID, Address: address, HTTP: p.HTTP, Host: host, PID: os.Getpid(),
		Parallelism: p.Parallelism, Backend: j.Backend, Numerics: o.Numerics.Hash, NumericsParts: o.Numerics.Parts,
		Protocol: job.Protocol, Keys: p.over.Registered(),
	}, p.TTL, p.Log)
	members := &proto.Pool{Options: p.over.Options(security.Worker), Stale: security.OtherKey}
	defer members.Close()
	coordinators := &proto.Pool{Options: p.over.Options(security.Coordinator), Stale: security.OtherKey}
	defer coordinators.Close()
	rings := NewRings(p.ID, j.UUID, p.over, p.client.OpenWorld, p.views.Learn)
	loop, err := p.loop(j, o, rings, members, coordinators)
	if err != nil {
		return err
	}
	loop.Leave = func() { membership.Update(func(m *job.Member) { m.Leaving = true }) }

	server := serving.NewServer(p.Log, loop.Observer.Panicked, append(p.over.ServerOptions(),
		grpclink.ServerOptions()...)...)
	rings.Server().Register(server)
	loop.Serve(server)
	p.tasks.Go(func() {
		if err := server.Serve(serving.Limited(listener, j.Spec.Plan().MicroBatches())); err != nil {
			p.cancel(fmt.Errorf("serving peers: %w", err))
		}
	})
	defer server.Stop()
	p.page.Store(new(loop.Handler(p.Metrics, membership.Registered)))
	p.tasks.Go(func() { membership.Run(ctx) })
	if p.over.Keys() != nil {
		p.tasks.Go(func() { p.register(ctx, membership) })
	}
	if p.Faults {
		p.tasks.Go(func() { loop.flips(ctx) })
	}
	p.tasks.Go(func() { p.limitLeaving(ctx, leaving) })
	p.Log.Info("ready", "address", address, "backend", j.Backend, "numerics", o.Numerics.Hash, "parallelism",
		p.Parallelism)
	return loop.Run(ctx, leaving)
}

// loop prepares the loop of a member.
func (p *process) loop(j job.Job, o Opened, rings *Rings, members, coordinators *proto.Pool) (*Loop, error) {
	layout, err := state.OfJob(o.Model.Tensors())
	if err != nil {
		return nil, fmt.Errorf("the model's state: %w", err)
	}
	l := &Loop{
		ID: p.ID, Job: j, Model: o.Model, Data: o.Data, MetricNames: p.MetricNames, Parallelism: p.Parallelism,
		Views: p.views, Connect: rings.Connect,
		Retain: func(addresses []string) { members.Retain(addresses); coordinators.Retain(addresses) },
		Fetch: Fetcher{Dial: members.Dial, Lead: coordinators.Dial, ExpectKeys: p.over.ExpectKeys, Layout: layout,
			Samples: j.Spec.Samples},
		Authorize: func(ctx context.Context) error {
			return p.over.CheckReader(ctx, p.views.Now().Keys(""))
		},
		Stay: p.Stay, CatchUpFrom: p.CatchUpFrom, Observer: p.Observer, Log: p.Log,
	}
	return l, l.Init()
}

// limitLeaving ends the process some time after it was asked to leave.
func (p *process) limitLeaving(ctx context.Context, leaving <-chan struct{}) {
	select {
	case <-ctx.Done():
		return
	case <-leaving:
	}
	select {
	case <-ctx.Done():
	case <-time.After(p.Grace):
		p.cancel(fmt.Errorf("leaving took more than %v: going at once; peers will recover", p.Grace))
	}
}

// open calls Open. A compiler cannot be interrupted: when ctx ends, or this process is asked to leave (then the model
// is nil), open returns and the compiler ends with the process.
func (cfg Config) open(ctx context.Context, j job.Job, leaving <-chan struct{}) (o Opened, err error) {
	type result struct {
		Opened
		err error
	}
	done := make(chan result, 1)
	go func() {
		o, err := cfg.Open(ctx, j)
		done <- result{o, err}
	}()
	select {
	case r := <-done:
		return r.Opened, r.err
	case <-leaving:
		cfg.Log.Info("left while loading and compiling")
		return o, nil
	case <-ctx.Done():
		return o, context.Cause(ctx)
	}
}

// awaitJob waits for a job that is not over. A stopped job's record of its end stays until a coordinator reopens it, so
// a new process waits. nil without an error: asked to leave, or the job is over.
func (p *process) awaitJob(ctx context.Context, leaving <-chan struct{}) (*job.Job, error) {
	for {
		view, changed := p.views.View()
		over := view.Done != nil && (view.Done.Complete || view.Done.Failure != "")
		switch {
		case view.Job != nil && view.Done == nil:
			return view.Job, nil
		case over && !p.Stay:
			p.Log.Info("the job is over already", "step", view.Done.Step)
			return nil, nil
		}
		select {
		case <-changed:
		case <-leaving:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Second):
			why := fmt.Sprintf("no coordinator has created job %q yet", p.Name)
			switch {
			case p.views.LastRead().IsZero():
				why = fmt.Sprintf("etcd at %v does not answer", p.Endpoints)
				if err := p.views.Err(); err != nil {
					why = err.Error()
				}
			case over:
				why = fmt.Sprintf("job %q is over; waiting for the next", p.Name)
			case view.Done != nil:
				why = fmt.Sprintf("job %q was stopped after step %d; no coordinator goes on with it yet",
					p.Name, view.Done.Step)
			}
			p.Log.Info("waiting", "why", why)
		}
	}
}

// servePages serves the pages of a worker without a job, until page is set to others.
func (p *process) servePages(pages *serving.Pages) error {
	p.page.Store(new(openingPages(p.Metrics)))
	shown := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { (*p.page.Load()).ServeHTTP(w, r) })
	if p.HTTP != "" {
		if _, err := pages.Listen(p.HTTP, p.over.Plain(shown)); err != nil {
			return err
		}
	}
	if p.HTTPS != "" {
		return pages.ListenTLS(p.HTTPS, p.over.ListenHTTPS, p.over.Pages(shown))
	}
	return nil
}
