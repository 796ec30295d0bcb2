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
	"evenweave/internal/local"
)

func (p *program) chaosCommand() *cobra.Command {
	var (
		spec    specFlags
		logs    logFlags
		workers int
		spares  int
		count   int
		kinds   string
		dir     string
		settle  bool
		single  bool
		timeout time.Duration
	)
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
	spec.register(p, f)
	logs.register(f)
	output := outputFlag(cmd)
	f.IntVar(&workers, "workers", 3, "workers to start with")
	f.IntVar(&spares, "spares", 0, "workers more that take over at once")
	f.StringVar(&kinds, "faults", joinKinds(chaos.Kinds()), "kinds of faults")
	f.IntVar(&count, "count", 0, "faults; 0: one for every 20 steps, and at least one of each kind")
	f.BoolVar(&settle, "settle", false, "inject a fault only into a full world that has committed a step")
	f.BoolVar(&single, "single", false, "kill one worker at a time")
	f.StringVar(&dir, "dir", "", "keep the two run directories here (default: a temporary one, removed when all was "+
		"equal)")
	f.DurationVar(&timeout, "timeout", 15*time.Minute, "give up after this time")
	defaults := map[string]string{"steps": "200", "global-batch": "32", "micro-batch": "8", "checkpoint-every": "25",
		"keep": "1000000"}
	maps.Copy(defaults, p.task.Short)
	for name, value := range defaults {
		if flag := f.Lookup(name); flag != nil {
			flag.DefValue = value
		}
	}
	f.Lookup("seed").Usage = "decides the faults, and every random number of the training"
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		for name, value := range defaults { // not before: other commands share the options
			if flag := f.Lookup(name); flag == nil || !flag.Changed && flag.Value.Set(value) != nil {
				return fmt.Errorf("task %q: Short sets --%s to %q, which cannot be", p.task.Name, name, value)
			}
		}
		if workers < 1 || spares < 0 || count < 0 {
			return usagef("--workers %d --spares %d --count %d: must be at least 1, 0 and 0", workers, spares, count)
		}
		faults, err := chaos.ParseKinds(kinds)
		if err != nil {
			return usageError{err}
		}
		if err := spec.check(); err != nil {
			return err
		}
		if _, err := spec.prepare(cmd.Context()); err != nil {
			return err
		}
		log, err := logs.logger(cmd.ErrOrStderr())
		if err != nil {
			return err
		}
		executable, err := os.Executable()
		if err != nil {
			return err
		}
		temporary := dir == ""
		if temporary {
			if dir, err = os.MkdirTemp("", "evenweave-chaos-"); err != nil {
				return err
			}
		} else if left, _ := filepath.Glob(filepath.Join(dir, "*", "checkpoints")); len(left) > 0 {
			return usagef("--dir %s holds runs already: choose another", dir)
		}
		signals, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		ctx, cancel := context.WithTimeoutCause(signals, timeout, fmt.Errorf("not over after --timeout %v", timeout))
		defer cancel()
		show := chaos.NewText(cmd.ErrOrStderr())
		if *output == "json" {
			show = chaos.NewJSON(cmd.OutOrStdout())
		}
		passed := logs.passed()
		_, err = chaos.Run(ctx, chaos.Config{
			Plan: chaos.Plan{Seed: spec.spec.Seed, Workers: workers, Steps: spec.spec.TotalSteps(), Kinds: faults,
				Count: count, CheckpointEvery: spec.checkpointEvery, Single: single},
			Dir: dir, Spares: spares, Settle: settle,
			Cluster: local.Config{
				Executable: executable, Job: "evenweave", Log: log,
				Coordinator: local.Launch{Role: local.Coordinator}.With(spec.settings(), passed, map[string]string{
					"output": "json", "expect-workers": strconv.Itoa(workers + spares),
					"max-workers": maxWorkers(workers, spares)}),
				Worker: local.Launch{Role: local.Worker}.With(passed, p.optionSettings(ownOption),
					map[string]string{"parallelism": strconv.Itoa(share(workers)), "data": spec.data}),
			},
		}, show)
		if temporary && err == nil {
			return os.RemoveAll(dir)
		}
		if signals.Err() != nil {
			return errInterrupted
		}
		if err != nil {
			return fmt.Errorf("%w; logs, metrics and checkpoints of both runs are in %s", err, dir)
		}
		return nil
	}
	return cmd
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
