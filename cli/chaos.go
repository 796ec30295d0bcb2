package cli

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave/internal/chaos"
)

// chaosRun is one call of `chaos`.
type chaosRun struct {
	specFlags
	logs                   logFlags
	workers, spares, count int
	kinds, dir             string
	settle, single         bool
	timeout                time.Duration
	output                 *string
	defaults               map[string]string // of flags, other than those of commands that train
}

func (p *program) chaosCommand() *cobra.Command {
	c := &chaosRun{}
	cmd := &cobra.Command{
		Use:   "chaos",
		Short: "Train under seeded faults; succeed only if the weights equal a calm run's",
		Long: `Trains the same job twice on this machine: calmly, then under faults that --seed decides. Exit code 0 only if weights, state, ledger,
checkpoints and evaluations are equal, down to the last bit.

Faults: kill (one to all workers), stop (a worker hangs), slow (a quarter of its time), partition (links of a worker carry nothing),
etcd (stopped, or killed), coordinator (killed, or stopped), join, leave, flip (a bit of a worker's parameters or moments).`,
		Args: noArgs,
	}
	f := cmd.Flags()
	c.register(p, f)
	c.logs.register(f)
	c.output = outputFlag(cmd)
	f.IntVar(&c.workers, "workers", 3, "workers to start with")
	f.IntVar(&c.spares, "spares", 0, "workers more that take over at once")
	f.StringVar(&c.kinds, "faults", joinKinds(chaos.Kinds()), "kinds of faults")
	f.IntVar(&c.count, "count", 0, "faults; 0: one for every 20 steps, and at least one of each kind")
	f.BoolVar(&c.settle, "settle", false, "inject a fault only into a full world that has committed a step")
	f.BoolVar(&c.single, "single", false, "kill one worker at a time")
	f.StringVar(&c.dir, "dir", "", "keep the two run directories here (default: a temporary one, removed when all was "+
		"equal)")
	f.DurationVar(&c.timeout, "timeout", 15*time.Minute, "give up after this time")
	c.defaults = map[string]string{"steps": "200", "global-batch": "32", "micro-batch": "8", "checkpoint-every": "25",
		"keep": "1000000"}
	maps.Copy(c.defaults, p.task.Short)
	p.later = append(p.later, func() error { // the options are there by then
		for name, value := range c.defaults {
			if flag := f.Lookup(name); flag != nil {
				flag.DefValue = value
			}
		}
		return nil
	})
	f.Lookup("seed").Usage = "decides the faults, and every random number of the training"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error { return c.run(cmd) }
	return cmd
}

// check sets the flags that were not given, finds bad usage and makes the directory.
func (c *chaosRun) check() (faults []chaos.Kind, err error) {
	for name, value := range c.defaults { // not before: other commands share the options
		if flag := c.flags.Lookup(name); flag == nil || !flag.Changed && flag.Value.Set(value) != nil {
			return nil, fmt.Errorf("task %q: Short sets --%s to %q, which cannot be", c.program.task.Name, name, value)
		}
	}
	if c.workers < 1 || c.spares < 0 || c.count < 0 {
		return nil, usagef("--workers %d --spares %d --count %d: must be at least 1, 0 and 0", c.workers, c.spares,
			c.count)
	}
	if faults, err = chaos.ParseKinds(c.kinds); err != nil {
		return nil, usageError{err}
	}
	if left, _ := filepath.Glob(filepath.Join(c.dir, "*", "checkpoints")); c.dir != "" && len(left) > 0 {
		return nil, usagef("--dir %s holds runs already: choose another", c.dir)
	}
	return faults, c.specFlags.check()
}

func (c *chaosRun) run(cmd *cobra.Command) error {
	faults, err := c.check()
	if err != nil {
		return err
	}
	// the faults are spread over the steps: how many those are, in epochs, the data say
	if _, _, err := c.open(cmd.Context()); err != nil {
		return err
	}
	log, err := c.logs.logger(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	cluster, err := c.cluster(&c.logs, log, share(c.workers), map[string]string{
		"expect-workers": strconv.Itoa(c.workers + c.spares), "max-workers": maxWorkers(c.workers, c.spares)})
	if err != nil {
		return err
	}
	dir := c.dir
	if dir == "" {
		if dir, err = os.MkdirTemp("", "evenweave-chaos-"); err != nil {
			return err
		}
	}
	signals, stop := signal.NotifyContext(cmd.Context(), terminate()...)
	defer stop()
	ctx, cancel := context.WithTimeoutCause(signals, c.timeout, fmt.Errorf("not over after --timeout %v", c.timeout))
	defer cancel()
	show := chaos.NewText(cmd.ErrOrStderr())
	if *c.output == "json" {
		show = chaos.NewJSON(cmd.OutOrStdout())
	}
	_, err = chaos.Run(ctx, chaos.Config{
		Plan: chaos.Plan{Seed: c.spec.Seed, Workers: c.workers, Steps: c.spec.TotalSteps(), Kinds: faults,
			Count: c.count, CheckpointEvery: c.checkpointEvery, Single: c.single},
		Dir: dir, Spares: c.spares, Settle: c.settle, Cluster: cluster,
	}, show)
	switch {
	case c.dir == "" && err == nil:
		return os.RemoveAll(dir)
	case signals.Err() != nil:
		return errInterrupted
	case err != nil:
		return fmt.Errorf("%w; logs, metrics and checkpoints of both runs are in %s", err, dir)
	}
	return nil
}

func joinKinds(kinds []chaos.Kind) string {
	names := make([]string, len(kinds))
	for i, k := range kinds {
		names[i] = string(k)
	}
	return strings.Join(names, ",")
}

// maxWorkers keeps spares out of the world; without spares, joining workers may enter.
func maxWorkers(workers, spares int) string {
	if spares == 0 {
		return "0"
	}
	return strconv.Itoa(workers)
}
