package cli

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenweave/coordinator"
	"evenweave/internal/cluster"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/mlflow"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/internal/telemetry"
	"evenweave/internal/tracing"
	"evenweave/internal/verify"
	"evenweave/proto"
	"evenweave/worker"
)

// clusterFlags say where etcd is and which job is meant.
type clusterFlags struct {
	etcd []string
	job  string
	ttl  time.Duration
	seal string // directory of the key that seals records, of a cluster at a Unix socket; "": they have no seals
	secureFlags
}

func (c *clusterFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&c.etcd, "etcd", []string{"http://127.0.0.1:2379"}, "etcd's client URLs")
	cmd.Flags().StringVar(&c.job, "job", "evenweave", "name of the job; its keys in etcd stand under it")
	c.secureFlags.register(cmd.Flags())
	// Hidden: of `train`, for its children.
	cmd.Flags().StringVar(&c.seal, "seal", "", "directory of the key that seals records")
	_ = cmd.Flags().MarkHidden("seal")
	cmd.Flags().DurationVar(&c.ttl, "ttl", 5*time.Second, "lease time of registrations and of the leadership")
}

// check refuses bad usage and completes the endpoints.
func (c *clusterFlags) check() error { return checkCluster(&c.etcd, c.job) }

// start returns the transport of a process, and warns if it has no TLS.
func (c *clusterFlags) start(role security.Role, https string, log *slog.Logger) (*security.Transport, error) {
	over, err := c.transport(c.etcd, c.job, role)
	if err != nil {
		return nil, err
	}
	if https != "" && over.Keys() == nil {
		return nil, usagef("--https needs --tls-ca, --tls-cert and --tls-key")
	}
	warnInsecure(log, over)
	if c.seal != "" && over.Keys() == nil {
		return over.SealedBy(c.seal, c.job)
	}
	return over, nil
}

// listen returns the address to listen at: the flag's, or a socket beside etcd's if etcd listens at a socket.
func (c *clusterFlags) listen(f *pflag.FlagSet, asked, id string) string {
	if _, local := security.SocketPath(c.etcd[0]); local && !f.Changed("listen") {
		return "unix:" + id + ".sock"
	}
	return asked
}

func checkCluster(etcd *[]string, name string) (err error) {
	if *etcd, err = cluster.Endpoints(*etcd); err != nil {
		return usageError{err}
	}
	if err := job.CheckName(name); err != nil {
		return usagef("--job %w", err)
	}
	return nil
}

// coordinatorRun is one call of `coordinator`.
type coordinatorRun struct {
	program  *program
	cluster  clusterFlags
	spec     specFlags
	logs     logFlags
	cfg      coordinator.Config
	started  int64
	whenDone string
	output   *string
}

func (p *program) coordinatorCommand() *cobra.Command {
	c := &coordinatorRun{program: p}
	cmd := &cobra.Command{
		Use:   "coordinator",
		Short: "Lead a job: publish worlds, keep checkpoints, evaluate",
		Long: `Leads a job whose records are in etcd: creates it, publishes which workers train together, fetches and keeps checkpoints in --dir,
and evaluates them on the test set. The steps go on without it; started again on the same --dir it goes on where it was.

SIGTERM gives the leadership up and leaves the job running. SIGINT (Ctrl-C) stops the job after its current step, with a last checkpoint.`,
		Args: noArgs,
	}
	f, cfg := cmd.Flags(), &c.cfg
	c.cluster.register(cmd)
	c.spec.register(p, f)
	c.spec.extendFlag(f)
	c.logs.register(f)
	c.output = outputFlag(cmd)
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "address of the gRPC service that hands checkpoints to workers")
	f.StringVar(&cfg.Advertise, "advertise", "", "address that workers reach it at (default: worked out from --listen)")
	mlflowFlag(f, &cfg.MLflow)
	f.StringVar(&cfg.HTTP, "http", "", "address of the live page and of probes, with --insecure of status, checkpoint "+
		"and metrics too; empty: none")
	f.StringVar(&cfg.HTTPS, "https", "", "address of status, checkpoint and metrics over TLS, for the roles operator "+
		"and metrics; empty: none")
	f.StringVar(&cfg.Dir, "dir", "./run", "directory for checkpoints and metrics")
	f.IntVar(&cfg.Limits.Min, "min-workers", 1, "train with no fewer")
	f.IntVar(&cfg.Limits.Max, "max-workers", 0,
		"train with no more, the rest are spares; 0: one for each micro-batch, "+
			fmt.Sprint(job.MaxWorld, " at most"))
	f.IntVar(&cfg.Limits.Expect, "expect-workers", 0, "the first world waits up to 20 s for this many")
	whenDoneFlag(f, &c.whenDone)
	// Hidden: `train` passes it on, so that the seconds at the end count from its own start.
	f.Int64Var(&c.started, "started", 0, "when the run began, nanoseconds since 1970")
	_ = f.MarkHidden("started")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.run(cmd) }
	return cmd
}

func (c *coordinatorRun) run(cmd *cobra.Command) error {
	p, cfg := c.program, &c.cfg
	if err := errors.Join(c.spec.check(), c.cluster.check(), checkMLflow(cfg.MLflow)); err != nil {
		return err
	}
	if cfg.Limits.Max > job.MaxWorld {
		return usagef("--max-workers %d: at most %d train together", cfg.Limits.Max, job.MaxWorld)
	}
	log, err := c.logs.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if cfg.Over, err = c.cluster.start(security.Coordinator, cfg.HTTPS, log); err != nil {
		return err
	}
	cfg.Started = time.Now()
	if c.started > 0 {
		cfg.Started = time.Unix(0, c.started)
	}
	ctx, halt, stop := coordinatorSignals(cmd.Context(), p.asked)
	defer stop()

	sets, notes, err := c.spec.open(ctx)
	if err != nil {
		return err
	}
	backend, notice, err := p.resolveBackend(c.spec.backend)
	if err != nil {
		return err
	}
	cfg.Model, err = guard.Model(p.task, setup(ctx, job.Job{Spec: c.spec.spec, Backend: backend}, true, log))
	if err != nil {
		return err
	}
	defer cfg.Model.Close()
	if err := verify.Check(cfg.Model, sets, c.spec.spec.MicroBatch, c.spec.evaluate); err != nil {
		return err
	}
	var screen progress.Observer = progress.NewPlain(cmd.ErrOrStderr(), time.Local)
	if *c.output == "json" {
		screen = progress.NewJSON(cmd.OutOrStdout())
	}
	observer := progress.Detach(screen)
	defer func() { flush(ctx, observer) }()
	if notice != "" {
		observer.Observe(progress.Record{Time: time.Now(), Event: progress.Warning{Message: notice}})
	}
	for _, message := range notes {
		observer.Observe(progress.Record{Time: time.Now(), Event: progress.Notice{Message: message}})
	}
	cfg.Listen = c.cluster.listen(cmd.Flags(), cfg.Listen, "coordinator")
	cfg.Name, cfg.Endpoints, cfg.Stay = c.cluster.job, c.cluster.etcd, c.whenDone == "wait"
	cfg.Spec, cfg.Backend, cfg.CheckpointEvery = c.spec.spec, backend, c.spec.checkpointEvery
	cfg.Keep, cfg.Evaluate, cfg.Extend = c.spec.keep, c.spec.evaluate, c.spec.extend
	cfg.Limits.ExpectFor, cfg.Limits.TTL = 20*time.Second, c.cluster.ttl
	cfg.Alone, cfg.PageOnly = p.asked != nil, p.asked != nil
	cfg.Test, cfg.HeldOut, cfg.MetricNames = sets.Test, sets.HeldOut, p.task.Metrics
	cfg.Observer, cfg.Log = observer, log.With("job", c.cluster.job, "process", "coordinator")
	cfg.Initial = p.initialState(map[string]string{"log-format": c.logs.format, "log-level": c.logs.level},
		cmd.ErrOrStderr())
	return coordinator.Serve(ctx, *cfg, halt)
}

// coordinatorSignals gives each signal its meaning: SIGTERM ends ctx, and the job goes on; SIGINT closes halt, and the
// job stops. A child of `evenweave train` ignores both; its parent asks it to halt.
func coordinatorSignals(parent context.Context, asked <-chan struct{}) (ctx context.Context, halt <-chan struct{},
	stop func()) {
	if asked != nil {
		local.LeaveToParent()
		return parent, asked, func() {}
	}
	ctx, halt, stopHalt := interrupts(parent, os.Interrupt)
	ctx, resign := signal.NotifyContext(ctx, append(hangup(), syscall.SIGTERM)...)
	return ctx, halt, func() { resign(); stopHalt() }
}

func mlflowFlag(f *pflag.FlagSet, address *string) {
	f.StringVar(address, "mlflow", "", "address of an MLflow tracking server to report to: http://HOST:PORT")
}

func checkMLflow(address string) error {
	if address == "" {
		return nil
	}
	if err := mlflow.CheckURL(address); err != nil {
		return usagef("--mlflow %w", err)
	}
	return nil
}

// whenDoneFlag is --when-done.
func whenDoneFlag(f *pflag.FlagSet, to *string) {
	chosen(f, to, "when-done", "exit", "exit, or wait until asked to end: for where an ended process is started again",
		"exit", "wait")
}

// workerRun is one call of `worker`.
type workerRun struct {
	program  *program
	cluster  clusterFlags
	logs     logFlags
	cfg      worker.Config
	data     string
	whenDone string
}

func (p *program) workerCommand() *cobra.Command {
	w := &workerRun{program: p}
	cmd := &cobra.Command{
		Use:   "worker",
		Short: "Train: compute micro-batches, all-reduce, update",
		Long: `Joins the job that etcd names: loads and compiles, registers, and trains in every world that the coordinator puts it into.
Any number may come and go. SIGTERM: finishes the step, leaves, exits 0. A second one: exits at once.`,
		Args: noArgs,
	}
	f, cfg := cmd.Flags(), &w.cfg
	w.cluster.register(cmd)
	w.logs.register(f)
	f.StringVar(&cfg.Listen, "listen", "127.0.0.1:0", "address of the ring and the member service")
	f.StringVar(&cfg.Advertise, "advertise", "", "address that others reach it at (default: worked out from --listen)")
	f.StringVar(&cfg.HTTP, "http", "", "address of probes, with --insecure of metrics too; empty: none")
	f.StringVar(&cfg.HTTPS, "https", "", "address of metrics over TLS, for the roles operator and metrics; empty: none")
	f.IntVar(&cfg.Parallelism, "parallelism", 0, "micro-batches computed side by side; 0: one for each core")
	whenDoneFlag(f, &w.whenDone)
	f.StringVar(&cfg.ID, "id", "", "name of this member (default: host name and a random suffix)")
	dataFlag(f, &w.data)
	p.optionFlags(f, ownOption)
	f.DurationVar(&cfg.Grace, "grace", 25*time.Second, "how long leaving may take")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return w.run(cmd) }
	return cmd
}

func (w *workerRun) check() error {
	cfg := &w.cfg
	if cfg.Parallelism < 0 {
		return usagef("--parallelism %d: must be 0 or more", cfg.Parallelism)
	}
	if cfg.Parallelism == 0 {
		cfg.Parallelism = runtime.GOMAXPROCS(0)
	}
	if cfg.ID == "" {
		host, _ := os.Hostname()
		cfg.ID = job.IDOf(host, job.MaxID-5) + "-" + uuid.NewString()[:4]
	}
	if err := job.CheckID(cfg.ID); err != nil {
		return usagef("--id %w", err)
	}
	return w.cluster.check()
}

func (w *workerRun) run(cmd *cobra.Command) error {
	if err := w.check(); err != nil {
		return err
	}
	// A gradient call keeps its thread until the scheduler interrupts it. Without another thread the ring waits for
	// that: 6% of a step on one processor.
	runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0)))
	log, err := w.logs.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	p, cfg := w.program, &w.cfg
	cfg.Log = log.With("job", w.cluster.job, "member", cfg.ID)
	if cfg.Over, err = w.cluster.start(security.Worker, cfg.HTTPS, cfg.Log); err != nil {
		return err
	}
	cfg.Listen = w.cluster.listen(cmd.Flags(), cfg.Listen, cfg.ID)
	cfg.Endpoints, cfg.Name, cfg.TTL, cfg.Stay = w.cluster.etcd, w.cluster.job, w.cluster.ttl, w.whenDone == "wait"
	cfg.Open, cfg.MetricNames = p.openJob(w.data, cfg.Log), p.task.Metrics
	cfg.Faults = takesFaults(p.asked != nil)
	metrics := telemetry.NewWorker(cfg.ID)
	metrics.Secured(cfg.Over)
	cfg.Observer, cfg.Metrics = metrics, metrics.Handler()
	if tracing.Wanted(os.Getenv) {
		traces, err := tracing.Open(cmd.Context(), os.Getenv, w.cluster.job, cfg.ID, cfg.Log)
		if err != nil {
			cfg.Log.Warn("there are no traces", "err", err)
		} else {
			cfg.Observer = traced{metrics, traces}
			defer closeTraces(traces, cfg.Log)
		}
	}
	if p.asked != nil {
		signal.Ignore(syscall.SIGHUP) // from the terminal; its parent handles it
	}
	ctx, leaving, stop := interrupts(cmd.Context(), terminate()...)
	defer stop()
	return worker.Serve(ctx, *cfg, leaving)
}

// traced is a worker's observer that traces its steps too.
type traced struct {
	*telemetry.Worker
	traces *tracing.Tracer
}

// Entered implements worker.Observer.
func (t traced) Entered(w job.World, rank int) {
	t.Worker.Entered(w, rank)
	t.traces.Entered(w, rank)
}

// Committed implements worker.Observer.
func (t traced) Committed(c *proto.Commit, sent int) {
	t.Worker.Committed(c, sent)
	t.traces.Committed(c)
}

// closeTraces sends the last traces. The member has left its job by then, so nothing but this process waits.
func closeTraces(t *tracing.Tracer, log *slog.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	if err := t.Close(ctx); err != nil {
		log.Warn("the last traces were not sent", "err", err)
	}
}

// takesFaults says whether this worker may be damaged on purpose: a child of `evenweave chaos` only, never a process of
// a cluster.
func takesFaults(child bool) bool { return child && os.Getenv("EVENWEAVE_FAULTS") == "1" }

// share is how many micro-batches each of the local workers computes side by side: by the processors that this process
// may use, not by those that the machine has.
func share(workers int) int { return max(1, runtime.GOMAXPROCS(0)/workers) }

func etcdCommand(asked <-chan struct{}) *cobra.Command {
	var dir, listen string
	var secure secureFlags
	cmd := &cobra.Command{
		Use: "etcd", Hidden: true, Args: noArgs, Short: "Run the embedded etcd of a local cluster",
		RunE: interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
			if asked != nil {
				local.LeaveToParent()
				var end context.CancelFunc
				ctx, end = context.WithCancel(cmd.Context())
				go func() { <-asked; end() }()
			}
			return local.ServeEtcd(ctx, dir, listen, secure.files, cmd.OutOrStdout())
		}),
	}
	cmd.Flags().StringVar(&dir, "dir", "", "data directory")
	cmd.Flags().StringVar(&listen, "listen", "", "where clients reach it: unix:PATH, http://HOST:PORT or, "+
		"with --tls-*, https://HOST:PORT")
	secure.register(cmd.Flags())
	return cmd
}
