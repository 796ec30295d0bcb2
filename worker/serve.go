package worker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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

// Serve is a worker process's whole part in a job: servers, registration and training. It returns when the job is done
// or ctx ends. When leaving is closed, the member leaves in good order.
func Serve(ctx context.Context, cfg Config, leaving <-chan struct{}) error {
	client, err := cluster.DialOver(cfg.Over, cfg.Endpoints, cfg.Name)
	if err != nil {
		return err
	}
	defer client.Close() // last: the deregistration uses it
	ctx, cancel := context.WithCancelCause(ctx)
	var tasks sync.WaitGroup
	defer tasks.Wait()
	defer cancel(nil)

	views := cluster.NewWatcher(cfg.Log)
	views.Member = cfg.ID
	tasks.Go(func() { views.Run(ctx, client) })
	var pages atomic.Pointer[http.Handler] // from the start: a worker that waits for its job is healthy too
	pages.Store(new(openingPages(cfg.Metrics)))
	over := client.Transport()
	if keys := over.Keys(); keys != nil {
		keys.Wait()
		tasks.Go(func() { keys.Watch(ctx, cfg.Log) })
	}
	closePages, err := cfg.servePages(over, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		(*pages.Load()).ServeHTTP(w, r)
	}), &tasks, cancel)
	defer closePages()
	if err != nil {
		return err
	}

	j, err := awaitJob(ctx, views, leaving, cfg)
	if err != nil || j == nil {
		return err
	}
	opened, err := cfg.open(ctx, *j, leaving)
	if err != nil || opened.Model == nil {
		return err
	}
	listener, err := over.Listen(cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening for peers: %w; choose another --listen", err)
	}
	address, err := cluster.Advertised(cfg.Advertise, listener.Addr(), cfg.Endpoints)
	if err != nil {
		return err
	}
	if warning := cluster.OnlyHere(address, listener.Addr(), cfg.Endpoints); warning != "" {
		cfg.Log.Warn(warning)
	}
	host, _ := os.Hostname()
	membership := cluster.NewMembership(client, job.Member{
		ID: cfg.ID, Job: j.UUID, Address: address, HTTP: cfg.HTTP, Host: host, PID: os.Getpid(),
		Parallelism: cfg.Parallelism, Backend: j.Backend, Numerics: opened.Numerics.Hash,
		NumericsParts: opened.Numerics.Parts, Protocol: job.Protocol, Keys: over.Registered(),
	}, cfg.TTL, cfg.Log)
	layout, err := state.OfJob(opened.Model.Tensors())
	if err != nil {
		return fmt.Errorf("the model's state: %w", err)
	}
	members := &proto.Pool{Options: over.Options(security.Worker), Stale: security.OtherKey}
	defer members.Close()
	coordinators := &proto.Pool{Options: over.Options(security.Coordinator), Stale: security.OtherKey}
	defer coordinators.Close()
	rings := NewRings(cfg.ID, j.UUID, over, client.OpenWorld, views.Learn)
	loop := &Loop{
		ID: cfg.ID, Job: *j, Model: opened.Model, Data: opened.Data, MetricNames: cfg.MetricNames,
		Parallelism: cfg.Parallelism,
		Views:       views,
		Connect:     retaining(rings.Connect, members, coordinators),
		Fetch: Fetcher{Dial: members.Dial, Lead: coordinators.Dial, ExpectKeys: over.ExpectKeys, Layout: layout,
			Samples: j.Spec.Samples},
		Leave: func() { membership.Update(func(m *job.Member) { m.Leaving = true }) },
		Authorize: func(ctx context.Context) error {
			v, _ := views.View()
			return over.CheckReader(ctx, v.Keys(""))
		},
		Stay: cfg.Stay, CatchUpFrom: cfg.CatchUpFrom, Observer: cfg.Observer, Log: cfg.Log,
	}
	if err := loop.Init(); err != nil {
		return err
	}

	server := serving.NewServer(cfg.Log, loop.Observer.Panicked, append(over.ServerOptions(),
		grpclink.ServerOptions()...)...)
	rings.Server().Register(server)
	loop.Serve(server)
	tasks.Go(func() {
		if err := server.Serve(serving.Limited(listener, j.Spec.Plan().MicroBatches())); err != nil {
			cancel(fmt.Errorf("serving peers: %w", err))
		}
	})
	defer server.Stop()
	pages.Store(new(loop.Handler(cfg.Metrics, membership.Registered)))
	tasks.Go(func() { membership.Run(ctx) })
	if over.Keys() != nil {
		tasks.Go(func() { cfg.register(ctx, over, views, membership) })
	}
	if cfg.Faults {
		tasks.Go(func() { loop.flips(ctx) })
	}
	tasks.Go(func() { // leaving must not take forever
		select {
		case <-ctx.Done():
			return
		case <-leaving:
		}
		select {
		case <-ctx.Done():
		case <-time.After(cfg.Grace):
			cancel(fmt.Errorf("leaving took more than %v: going at once; peers will recover", cfg.Grace))
		}
	})
	cfg.Log.Info("ready", "address", address, "backend", j.Backend, "numerics", opened.Numerics.Hash, "parallelism",
		cfg.Parallelism)
	return loop.Run(ctx, leaving)
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

// retaining closes the connections to processes outside a world before it connects the world.
func retaining(connect Connect, pools ...*proto.Pool) Connect {
	return func(ctx context.Context, w job.World, rank int) (Collective, error) {
		addresses := []string{w.Coordinator}
		for _, p := range w.Peers {
			addresses = append(addresses, p.Address)
		}
		for _, pool := range pools {
			pool.Retain(addresses)
		}
		return connect(ctx, w, rank)
	}
}

// awaitJob waits for a job that is not over. A stopped job's record of its end stays until a coordinator reopens it, so
// a new process waits. nil without an error: asked to leave, or the job is over.
func awaitJob(ctx context.Context, views *cluster.Watcher, leaving <-chan struct{}, cfg Config) (*job.Job, error) {
	for {
		view, changed := views.View()
		over := view.Done != nil && (view.Done.Complete || view.Done.Failure != "")
		switch {
		case view.Job != nil && view.Done == nil:
			return view.Job, nil
		case over && !cfg.Stay:
			cfg.Log.Info("the job is over already", "step", view.Done.Step)
			return nil, nil
		}
		select {
		case <-changed:
		case <-leaving:
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-time.After(5 * time.Second):
			why := fmt.Sprintf("no coordinator has created job %q yet", cfg.Name)
			switch {
			case views.LastRead().IsZero():
				why = fmt.Sprintf("etcd at %v does not answer", cfg.Endpoints)
				if err := views.Err(); err != nil {
					why = err.Error()
				}
			case over:
				why = fmt.Sprintf("job %q is over; waiting for the next", cfg.Name)
			case view.Done != nil:
				why = fmt.Sprintf("job %q was stopped after step %d; no coordinator goes on with it yet",
					cfg.Name, view.Done.Step)
			}
			cfg.Log.Info("waiting", "why", why)
		}
	}
}

// servePages serves the pages until they are closed. It cancels if they end before.
func (cfg Config) servePages(over *security.Transport, pages http.Handler, tasks *sync.WaitGroup,
	cancel context.CancelCauseFunc) (closePages func(), err error) {
	var open []*http.Server
	closePages = func() {
		for _, s := range open {
			_ = s.Close()
		}
	}
	serve := func(l net.Listener, h http.Handler) {
		s := serving.NewPages(h)
		open = append(open, s)
		tasks.Go(func() {
			if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
				cancel(fmt.Errorf("serving status pages: %w", err))
			}
		})
	}
	if cfg.HTTP != "" {
		l, err := net.Listen("tcp", cfg.HTTP)
		if err != nil {
			return closePages, fmt.Errorf("listening for status pages: %w; choose another --http", err)
		}
		serve(serving.LimitPages(l), over.Plain(pages))
	}
	if cfg.HTTPS != "" {
		l, err := over.ListenHTTPS(cfg.HTTPS, serving.LimitPages)
		if err != nil {
			return closePages, fmt.Errorf("listening for pages over TLS: %w; choose another --https", err)
		}
		serve(l, over.Pages(pages))
	}
	return closePages, nil
}
