package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/plot"
	"evenweave/internal/processors"
	"evenweave/internal/progress"
)

// trainRun is one call of `train`.
type trainRun struct {
	specFlags
	logs                 logFlags
	workers, parallelism int
	pin                  bool
	dir, page, tracking  string
	output               *string
}

func (p *program) trainCommand() *cobra.Command {
	t := &trainRun{}
	cmd := &cobra.Command{
		Use:   "train",
		Short: "Train on this machine: etcd, a coordinator and N workers in one command",
		Long: `Runs a whole cluster on this machine, each part a process of its own: an embedded etcd, a coordinator and N workers.
It resumes what --dir holds, at the exact step, with any number of workers.

Ctrl-C stops after the current step with a last checkpoint; a second Ctrl-C stops at once.
While it runs:  ` + fmt.Sprintf("%[1]s status --watch    %[1]s scale 4    %[1]s blame", p.name),
		Args: noArgs,
	}
	f := cmd.Flags()
	t.register(p, f)
	t.extendFlag(f)
	t.logs.register(f)
	t.output = outputFlag(cmd)
	f.IntVar(&t.workers, "workers", 2, "worker processes to start with")
	f.IntVar(&t.parallelism, "parallelism", 0, "micro-batches that a worker computes side by side; 0: its share of "+
		"the cores")
	// Two flags: with a pin the system decides where a worker's threads run, with --parallelism how many there are.
	f.BoolVar(&t.pin, "pin", true, "each worker on processors of its own, where there are enough (Linux)")
	f.StringVar(&t.dir, "dir", "./run", "run directory: checkpoints, metrics, logs, etcd's data")
	mlflowFlag(f, &t.tracking)
	f.StringVar(&t.page, "http", "127.0.0.1:0", "address of the live page, on this machine; port 0: a free one; "+
		"empty: no page")
	_ = f.SetAnnotation("http", mayBeEmpty, []string{})
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return t.run(cmd) }
	return cmd
}

func (t *trainRun) check() (err error) {
	if t.workers < 1 {
		return usagef("--workers %d: must be at least 1", t.workers)
	}
	if t.parallelism < 0 {
		return usagef("--parallelism %d: must be 0 or more", t.parallelism)
	}
	if t.page, err = local.PageAddress(t.page); err != nil {
		return usagef("--http %w", err)
	}
	if t.parallelism == 0 {
		t.parallelism = share(t.workers)
	}
	return errors.Join(t.specFlags.check(), checkMLflow(t.tracking))
}

func (t *trainRun) run(cmd *cobra.Command) error {
	began := time.Now()
	if err := t.check(); err != nil {
		return err
	}
	// before anything is started; the coordinator prepares again
	if _, err := t.prepare(cmd.Context()); err != nil {
		return err
	}
	ctx, interrupt, stop := interrupts(cmd.Context(), terminate()...)
	defer stop()
	show, last, closeShow := renderer(ctx, cmd, *t.output)
	defer closeShow()
	log, err := t.logs.warnings(show)
	if err != nil {
		return err
	}
	c, err := t.cluster(&t.logs, log, t.parallelism, map[string]string{
		"extend": strconv.FormatBool(t.extend), "http": t.page, "mlflow": t.tracking,
		"expect-workers": strconv.Itoa(t.workers), "started": strconv.FormatInt(began.UnixNano(), 10)})
	if err != nil {
		return err
	}
	c.Dir, c.Workers, c.Pin, c.GPUs = t.dir, t.workers, t.pin, t.gpus(log)
	c.Events, c.Finished = func(r io.Reader) error { return progress.Relay(r, show) }, last.finished
	if t.extend {
		c.Hold = last.started
	}
	err = local.Run(ctx, c, interrupt)
	draw(t.dir, log)
	if exitCode(err) == exitInterrupted && !last.finished() {
		show.Observe(progress.Record{Time: time.Now(), Event: progress.Warning{Message: "interrupted without a " +
			"last checkpoint: a resumed run goes on from the newest one before"}})
	}
	if shown := closeShow(); shown && *t.output == "text" {
		last.show(cmd.OutOrStdout())
	}
	return err
}

// gpus are those that the workers compute on, if they compute on GPUs.
func (t *trainRun) gpus(log *slog.Logger) []string {
	if t.backend != "xla:cuda" {
		return nil
	}
	gpus := processors.GPUs()
	if len(gpus) > 0 && t.workers > len(gpus) {
		log.Warn("workers share GPUs: they take turns, and each needs memory of its own", "workers", t.workers, "gpus",
			len(gpus))
	}
	return gpus
}

// cluster is a cluster of this machine, whose processes get the flags; coordinator has settings of its own.
func (s *specFlags) cluster(logs *logFlags, log *slog.Logger, parallelism int, coordinator map[string]string) (
	local.Config, error) {
	executable, err := os.Executable()
	passed := logs.passed()
	return local.Config{
		Executable: executable, Job: "evenweave", Log: log,
		Coordinator: local.Launch{Role: local.Coordinator}.With(s.settings(), passed,
			map[string]string{"output": "json"}, coordinator),
		Worker: local.Launch{Role: local.Worker}.With(passed, s.program.optionSettings(ownOption),
			map[string]string{"parallelism": strconv.Itoa(parallelism), "data": s.data}),
	}, err
}

// draw makes a picture of the run's learning curve beside its numbers.
func draw(dir string, log *slog.Logger) {
	var curve plot.Curve
	_, err := progress.ReadMetrics(filepath.Join(dir, "metrics.jsonl"), curve.Add)
	if err == nil {
		err = curve.Draw(filepath.Join(dir, "learning-curve.png"))
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, plot.ErrNoCurve) {
		log.Warn("no picture of the learning curve", "err", err)
	}
}

// renderer chooses how progress is shown: JSON lines on standard output, else on standard error a bar on a terminal,
// lines elsewhere. last keeps what came out. closeShow waits for a reader that stalls until ctx ends, and says whether
// all was shown.
func renderer(ctx context.Context, cmd *cobra.Command, output string) (show progress.Observer, last *finale,
	closeShow func() bool) {
	last = &finale{started: make(chan struct{})}
	var screen progress.Observer
	closeScreen := func() {}
	if output == "json" {
		screen = progress.NewJSON(cmd.OutOrStdout())
	} else if fd := int(os.Stderr.Fd()); drawable(os.Stderr, os.Getenv("TERM")) {
		bar := progress.NewBar(cmd.ErrOrStderr(), func() int {
			width, _, err := term.GetSize(fd)
			if err != nil {
				return 80
			}
			return width
		}, time.Local)
		closeScreen = func() { _ = bar.Close() }
		screen = bar
	} else {
		screen = progress.NewPlain(cmd.ErrOrStderr(), time.Local)
	}
	detached := progress.Detach(screen)
	return progress.Multi(detached, last), last, func() bool {
		shown := flush(ctx, detached)
		if shown {
			closeScreen()
		}
		return shown
	}
}

// flush waits until everything is passed on or ctx ends; if ctx has ended already, for one second.
func flush(ctx context.Context, d *progress.Detached) bool {
	if ctx.Err() != nil {
		limited, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		ctx = limited
	}
	return d.Close(ctx)
}

// warnings is a log whose lines are warnings among the events of this process: a stalled screen then delays nothing.
func (l *logFlags) warnings(to progress.Observer) (*slog.Logger, error) {
	level, err := l.leastLevel()
	return slog.New(slog.NewTextHandler(warner{to}, &slog.HandlerOptions{Level: level,
		ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
			if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) { // an event has its own
				return slog.Attr{}
			}
			return a
		}})), err
}

type warner struct{ to progress.Observer }

// Write gets `msg="starting again" process=worker-2`.
func (w warner) Write(line []byte) (int, error) {
	text := strings.TrimPrefix(strings.TrimSpace(string(line)), slog.MessageKey+"=")
	if quoted, err := strconv.QuotedPrefix(text); err == nil {
		message, _ := strconv.Unquote(quoted)
		text = message + text[len(quoted):]
	}
	w.to.Observe(progress.Record{Time: time.Now(), Event: progress.Warning{Message: text}})
	return len(line), nil
}

// finale keeps the events that decide what train prints at its end.
type finale struct {
	done    atomic.Pointer[progress.Done]
	started chan struct{} // closed when the job is created or gone on with
	once    sync.Once
}

// Observe implements progress.Observer.
func (f *finale) Observe(r progress.Record) {
	switch e := r.Event.(type) {
	case progress.Start:
		f.once.Do(func() { close(f.started) })
	case progress.Done:
		f.done.Store(&e)
	}
}

func (f *finale) finished() bool { return f.done.Load() != nil }

func (f *finale) show(w io.Writer) {
	d := f.done.Load()
	if d == nil {
		return
	}
	fmt.Fprintf(w, "step            %d (epoch %d)\n", d.Step, d.Epoch)
	for _, f := range d.Figures {
		fmt.Fprintf(w, "%-15s %.4f\n", "test "+job.Clean(f.Name), f.Value)
	}
	fmt.Fprintf(w, "weights sha256  %s\ncheckpoint      %s\nsamples/s       %.0f\nseconds         %.1f\n",
		d.WeightsSHA256, d.Checkpoint, d.SamplesPerSecond, d.WallSeconds)
}
