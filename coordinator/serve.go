package coordinator

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/mlflow"
	"evenweave/internal/progress"
	"evenweave/internal/serving"
	"evenweave/internal/telemetry"
	"evenweave/internal/tracing"
)

// Serve is a coordinator process's whole part in a job: it hands checkpoints to members, shows its pages, and leads
// when it is elected. It returns as [Coordinator.Run] does, but nil when ctx ends, for then the leadership was given
// up; with Config.Stay not before it is asked to end.
func Serve(ctx context.Context, cfg Config, halt <-chan struct{}) error {
	v := cfg.Spec.Plan().MicroBatches()
	if cfg.Limits.Max == 0 || cfg.Limits.Max > v {
		cfg.Limits.Max = v
	}
	cfg.Limits.Max = min(cfg.Limits.Max, job.MaxWorld)
	client, err := cluster.DialOver(cfg.Over, cfg.Endpoints, cfg.Name)
	if err != nil {
		return err
	}
	defer client.Close()
	over := client.Transport()
	listener, err := over.Listen(cfg.Listen)
	if err != nil {
		return fmt.Errorf("listening: %w; choose another --listen", err)
	}
	defer listener.Close()
	if cfg.self, err = cfg.leader(listener.Addr()); err != nil {
		return err
	}
	var c *Coordinator
	metrics := telemetry.NewCoordinator(func() telemetry.Facts { return c.facts() })
	metrics.Secured(over)
	cfg.Observer = progress.Multi(cfg.Observer, metrics)
	defer cfg.track(ctx)()
	if c, err = openCoordinator(cfg, client); err != nil {
		return err
	}
	defer func() {
		if err := c.Close(); err != nil {
			cfg.Log.Warn("closing", "err", err)
		}
	}()
	running, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	if keys := over.Keys(); keys != nil {
		go keys.Watch(running, cfg.Log)
	}
	server := serving.NewServer(cfg.Log, metrics.Panicked, over.ServerOptions()...)
	c.Serve(server)
	go func() {
		if err := server.Serve(serving.Limited(listener, v)); err != nil {
			fail(fmt.Errorf("serving checkpoints: %w", err))
		}
	}()
	defer server.Stop()
	pages := &serving.Pages{Fail: fail}
	defer pages.Close()
	if err := c.servePages(pages, metrics.Handler()); err != nil {
		return err
	}
	defer c.page.Finish(5 * time.Second) // so that an open page shows the end, on a busy machine too
	err = c.Run(running, halt)
	if err == nil && cfg.Stay {
		err = c.stay(running, halt)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // resigned
	}
	return err
}

// trackingWait bounds how long the end of the process waits for those that are reported to.
const trackingWait = 10 * time.Second

// track reports to MLflow and to a receiver of traces beside the observer, if they are wanted, until stop.
func (cfg *Config) track(ctx context.Context) (stop func()) {
	var closers []func(context.Context) error
	if cfg.MLflow != "" {
		run := mlflow.Begin(mlflow.Config{URL: cfg.MLflow, Experiment: cfg.Name, Params: mlflow.Params(cfg.Spec),
			Log: cfg.Log})
		cfg.Observer, closers = progress.Multi(cfg.Observer, run), append(closers, run.Close)
	}
	if tracing.Wanted(os.Getenv) {
		traces, err := tracing.Open(ctx, os.Getenv, cfg.Name, "coordinator", cfg.Log)
		if err != nil {
			cfg.Log.Warn("there are no traces", "err", err)
		} else {
			cfg.Observer, cfg.traces = progress.Multi(cfg.Observer, traces), traces
			closers = append(closers, traces.Close)
		}
	}
	return func() {
		ctx, cancel := context.WithTimeout(context.Background(), trackingWait)
		defer cancel()
		for _, closeOne := range closers {
			if err := closeOne(ctx); err != nil {
				cfg.Log.Warn("the tracking server or the receiver of traces lacks the last reports", "err", err)
			}
		}
	}
}

// leader is the record of this process, with the address that others reach it at.
func (cfg Config) leader(listening net.Addr) (job.Leader, error) {
	address, err := cluster.Advertised(cfg.Advertise, listening, cfg.Endpoints, cfg.Log)
	if err != nil {
		return job.Leader{}, err
	}
	host, _ := os.Hostname()
	return job.Leader{ID: "coordinator-" + uuid.NewString()[:8], Address: address, HTTP: cfg.HTTP, Host: host,
		PID: os.Getpid()}, nil
}

// servePages serves the live page, and the status pages and metrics unless only the live page is wanted.
func (c *Coordinator) servePages(pages *serving.Pages, metrics http.Handler) error {
	all := http.NewServeMux()
	all.Handle("/", c.Handler())
	all.Handle("GET /metrics", metrics)
	if c.HTTP != "" {
		plain := http.NewServeMux()
		if !c.PageOnly {
			plain.Handle("/", c.over.Plain(all))
		}
		if err := c.openPage(pages, plain); err != nil && !c.PageOnly {
			return err
		} else if err != nil {
			c.journal.emit(progress.Warning{Message: "there is no page: " + err.Error()})
		}
	}
	if c.HTTPS != "" {
		return pages.ListenTLS(c.HTTPS, c.over.ListenHTTPS, c.over.Pages(all))
	}
	return nil
}

// stay keeps the pages up after the end of the job, until this process is asked to end.
func (c *Coordinator) stay(ctx context.Context, halt <-chan struct{}) error {
	c.journal.emit(progress.Notice{Message: "done: the result is in " + c.Dir + "; waiting to be asked to end"})
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-halt:
		return nil
	}
}
