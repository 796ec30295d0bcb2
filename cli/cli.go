// Package cli is the whole command line of a program that trains a task: flags, variables, signals and exit codes. It
// knows tasks by the types of package evenweave alone. Each command assembles the packages that do the work.
//
//	cli.go        Main, Run; the commands; logs and signals
//	name.go       the program's own name in all that it says
//	task.go       a task's options, data and model for the commands
//	spec.go       the flags that say what is trained
//	variables.go  EVENWEAVE_* variables
//	train.go      a cluster on this machine
//	processes.go  coordinator, worker, etcd; initial.go: the process that makes a job's first state
//	commands.go   the task's own commands; checkpoints that they load
//	checkpoint.go what a run's checkpoints hold, and whether they are whole
//	export.go     a checkpoint as a file for other programs
//	running.go    scale, blame, and how a running cluster is found; status.go; ended.go: of a run that is over
//	inspect.go    the variables of a model; data.go: the task's data; verify.go: are the bits equal each time
//	bench.go      measures the ring; bench_step.go: a step
//	chaos.go, certs.go, plot.go, report.go, version.go: the commands of these names
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenweave"
	"evenweave/coordinator"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/processors"
	"evenweave/worker"
)

// Exit codes.
const (
	exitDone        = 0
	exitFailed      = 1
	exitUsage       = 2
	exitUnfit       = local.ExitUnfit
	exitInterrupted = 130
)

// usageError is bad usage: nothing was started.
type usageError struct{ error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// errInterrupted ends a command at the second interrupt, or at the first if it has nothing to save.
var errInterrupted = errors.New("interrupted")

// Main runs the command that the process's arguments name, for a task, and exits. On one machine the program starts
// itself again as the processes of a cluster: whatever main does before Main, each of those processes does too.
func Main(t *evenweave.Task) {
	asked := local.Lifeline()
	signal.Ignore(syscall.SIGPIPE) // the reader of the output may exit; the training goes on
	out := &output{to: os.Stdout}
	err := out.also(run(context.Background(), t, asked, out, os.Args[1:]))
	os.Exit(report(namedWriter{os.Stderr, programName()}, programName(), err))
}

// Run runs one command line of a task in this process, and returns how it ended: nil where Main would exit with 0. A
// command that starts other processes, as train does, starts this process's executable, whose main must be Main with
// the same task.
func Run(ctx context.Context, t *evenweave.Task, args ...string) error {
	return run(ctx, t, nil, os.Stdout, args)
}

// run runs one command line. asked is not nil in a child of train.
func run(ctx context.Context, t *evenweave.Task, asked <-chan struct{}, out io.Writer, args []string) (err error) {
	defer guard.Recover(&err)
	p, err := newProgram(t, programName(), asked)
	if err != nil {
		return err
	}
	root, err := p.commandLine(out, os.Stderr)
	if err != nil {
		return err
	}
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

// report prints the error that ended the program, and returns the exit code.
func report(w io.Writer, name string, err error) int {
	code := exitCode(err)
	if err != nil && !errors.Is(err, errUnread) && (code != exitInterrupted || errors.Is(err, coordinator.ErrStandby)) {
		if p, ok := errors.AsType[*guard.Panic](err); ok && p.Stack != nil {
			fmt.Fprintf(w, "%s\n", p.Stack)
		}
		printError(w, err)
		if code == exitUsage {
			fmt.Fprintf(w, "See `%s --help`, or `%s COMMAND --help`.\n", name, name)
		}
	}
	return code
}

// printError prints an error. It may quote text from elsewhere, so its further lines are indented: none of them looks
// like a message of this program.
func printError(w io.Writer, err error) {
	fmt.Fprintln(w, strings.Join(job.Lines("error: "+err.Error()), "\n       "))
}

func exitCode(err error) int {
	var exit *local.Exit
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usageError{}), errors.As(err, &evenweave.UsageError{}):
		return exitUsage
	case errors.Is(err, errInterrupted), errors.Is(err, coordinator.ErrHalted), errors.Is(err, coordinator.ErrStandby):
		return exitInterrupted
	case errors.As(err, new(*worker.Unfit)):
		return exitUnfit
	case errors.As(err, &exit):
		return exit.Code
	}
	return exitFailed
}

// root makes the commands.
func (p *program) root() (*cobra.Command, error) {
	var root *cobra.Command
	root = &cobra.Command{
		Use:   p.name,
		Short: "Elastic data-parallel training in which the number of workers changes nothing but the speed",
		Long: about(p.task) + fmt.Sprintf(`Trains a model on any number of workers. The same seed gives the same weights, down to the last bit,
with 1, 2, 3 or 7 workers, and with workers killed, hung, added or removed on the way.

Start with:     %[1]s train
Then try:       %[1]s status --watch, %[1]s scale 4 (in another terminal), Ctrl-C, %[1]s train again

Every flag can also be given as a variable: --global-batch is EVENWEAVE_GLOBAL_BATCH. A flag beats its variable.
Exit codes: 0 done, 1 failed, 2 bad usage, 130 interrupted; of a worker also 3: unfit, its state goes wrong again and again.`, p.name),
		SilenceErrors: true, SilenceUsage: true,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usagef("unknown command %q%s", args[0], near(root.SuggestionsFor(args[0]), ""))
			}
			return nil
		},
		RunE:              func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SuggestionsMinimumDistance = 2
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return usageError{withFlags(cmd, err)} })
	root.PersistentPreRunE = func(cmd *cobra.Command, _ []string) error {
		if err := processors.Batch(); err != nil { // only slower without
			slog.Debug("computing threads will be interrupted by others that wake up", "err", err)
		}
		if p.asked == nil && cmd.Name() != string(local.Initial) { // the parent of a child has warned already
			warnUnknown(cmd.ErrOrStderr(), root, os.Environ())
		}
		return fromEnvironment(cmd.Flags())
	}
	root.AddCommand(p.trainCommand(), p.coordinatorCommand(), p.workerCommand(), p.initialCommand(),
		etcdCommand(p.asked), healthCommand(),
		statusCommand(), scaleCommand(), blameCommand(), reportCommand(), checkpointCommand(), p.exportCommand(),
		p.benchCommand(),
		p.chaosCommand(), p.verifyCommand(), p.inspectCommand(), p.versionCommand(), p.dataCommand(),
		plotCommand(), certsCommand())
	later := p.later
	p.later = nil
	for _, add := range later {
		if err := add(); err != nil {
			return nil, err
		}
	}
	return root, p.addOwn(root)
}

// near is the end of an error about a name, with those that it may have meant.
func near(names []string, dashes string) string {
	if len(names) == 0 {
		return ""
	}
	return "; did you mean " + dashes + strings.Join(names, " or "+dashes) + "?"
}

// withFlags adds to an error about an unknown flag those whose names are close to it, by cobra's measure for commands.
func withFlags(cmd *cobra.Command, err error) error {
	unknown, ok := errors.AsType[*pflag.NotExistError](err)
	if !ok || len(unknown.GetSpecifiedName()) < 2 {
		return err
	}
	names := &cobra.Command{SuggestionsMinimumDistance: 2}
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names.AddCommand(&cobra.Command{Use: f.Name, Run: func(*cobra.Command, []string) {}})
		}
	})
	return fmt.Errorf("%w%s", err, near(names.SuggestionsFor(unknown.GetSpecifiedName()), "--"))
}

// about returns the task's sentence, with which --help begins.
func about(t *evenweave.Task) string {
	if t.About == "" {
		return ""
	}
	return strings.TrimSuffix(t.About, ".") + ".\n\n"
}

// addOwn adds the tool's commands that a task may replace, and the task's.
func (p *program) addOwn(root *cobra.Command) error {
	for _, c := range append([]evenweave.Command{p.evaluate()}, p.task.Commands...) {
		cmd, err := p.own(c)
		if err != nil {
			return err
		}
		for _, other := range root.Commands() {
			if other.Name() == cmd.Name() {
				root.RemoveCommand(other)
			}
		}
		root.AddCommand(cmd)
	}
	return nil
}

// noArgs refuses arguments as bad usage.
func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%s takes no argument, got %q", cmd.Name(), args[0])
	}
	return nil
}

// choice is a flag whose value is one of some words.
type choice struct {
	to    *string
	words []string
}

func (c choice) String() string { return *c.to }
func (c choice) Type() string   { return "string" }

// Set implements pflag.Value.
func (c choice) Set(word string) error {
	if !slices.Contains(c.words, word) {
		return fmt.Errorf("must be one of %s", strings.Join(c.words, ", "))
	}
	*c.to = word
	return nil
}

// chosen adds a flag that is a choice between words.
func chosen(f *pflag.FlagSet, to *string, name, value, usage string, words ...string) {
	*to = value
	f.Var(choice{to, words}, name, usage)
}

// outputFlag is -o text|json, and what a command has beside them.
func outputFlag(cmd *cobra.Command, others ...string) *string {
	output := new(string)
	usage := "text, or json: one line an event, with event and time"
	if len(others) > 0 {
		usage = "text, json, " + strings.Join(others, ", ")
	}
	*output = "text"
	cmd.Flags().VarP(choice{output, append([]string{"text", "json"}, others...)}, "output", "o", usage)
	return output
}

// logFlags are --log-format and --log-level.
type logFlags struct{ format, level string }

func (l *logFlags) register(flags *pflag.FlagSet) {
	chosen(flags, &l.format, "log-format", "text", "text or json", "text", "json")
	flags.StringVar(&l.level, "log-level", "info", "debug, info, warn or error")
}

// passed returns the settings that every child process gets beside its own: those of its logs, and those whose variable
// would give several processes of one machine the same value.
func (l *logFlags) passed() map[string]string {
	return map[string]string{"log-format": l.format, "log-level": l.level, "listen": "127.0.0.1:0", "advertise": "",
		"http": "", "when-done": "exit"}
}

func (l *logFlags) leastLevel() (level slog.Level, err error) {
	if level.UnmarshalText([]byte(l.level)) != nil {
		err = usagef("--log-level %q: must be debug, info, warn or error", l.level)
	}
	return level, err
}

func (l *logFlags) logger(w io.Writer) (*slog.Logger, error) {
	level, err := l.leastLevel()
	if err != nil {
		return nil, err
	}
	options := &slog.HandlerOptions{Level: level}
	w = printable{w}
	if l.format == "json" {
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return slog.New(slog.NewTextHandler(w, options)), nil
}

// printable is a writer of whole lines that escapes control sequences: log lines quote records and errors of other
// processes.
type printable struct{ to io.Writer }

func (p printable) Write(line []byte) (int, error) {
	if _, err := p.to.Write(job.Escape(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

// interrupts closes soft at the first of the signals and ends the context at the second.
func interrupts(parent context.Context, signals ...os.Signal) (ctx context.Context, soft <-chan struct{}, stop func()) {
	ctx, cancel := context.WithCancelCause(parent)
	first, caught := make(chan struct{}), make(chan os.Signal, 2)
	signal.Notify(caught, signals...)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-caught:
			}
			if n == 0 {
				close(first)
			} else {
				cancel(errInterrupted)
			}
		}
	}()
	return ctx, first, func() { signal.Stop(caught); cancel(nil) }
}

// interruptible gives a command a context that ends when this process is asked to end.
func interruptible(run func(ctx context.Context, cmd *cobra.Command, args []string) error) func(*cobra.Command,
	[]string) error {
	return func(cmd *cobra.Command, args []string) error {
		ctx, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		return unlessInterrupted(ctx, run(ctx, cmd, args))
	}
}

// unlessInterrupted replaces an error by errInterrupted if ctx has ended: the interrupt is the cause.
func unlessInterrupted(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

// terminate returns the signals that ask a process to end. SIGHUP, which a closing terminal sends, is one of them
// unless it was ignored at the start (nohup).
func terminate() []os.Signal { return append(hangup(), os.Interrupt, syscall.SIGTERM) }

func hangup() []os.Signal {
	if signal.Ignored(syscall.SIGHUP) {
		return nil
	}
	return []os.Signal{syscall.SIGHUP}
}
