package cli

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/evenweavetest"
	"evenweave/internal/example"
	"evenweave/internal/processors"
)

// beProgram makes this test binary a program of the tiny task: `train` starts its children from its own executable.
const beProgram = "EVENWEAVE_TEST_BINARY_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		Main(tiny())
	}
	evenweavetest.ClearVariables()
	os.Exit(m.Run())
}

// deadline is how long a test waits for what must happen: only a hang takes so long, however busy the machine is.
const deadline = 3 * time.Minute

// tinyOptions are those of the tiny task.
type tinyOptions struct {
	Points int    `flag:"points" help:"points to train on"`
	Slow   bool   `flag:"slow" help:"nothing is slow" spec:"-"`
	From   string `flag:"from" help:"text to start from" spec:"-,create"`
	Hash   string `spec:"hash"`
}

func (o *tinyOptions) Validate() error {
	if o.Points < 1 {
		return errors.New("--points must be at least 1")
	}
	return nil
}

func (o *tinyOptions) Prepare(context.Context) ([]string, error) {
	o.Hash = strings.ToUpper(o.From)
	return nil, nil
}

// tiny is the task of package example.
func tiny() *evenweave.Task {
	o := &tinyOptions{Points: 300}
	return &evenweave.Task{
		Name: "tiny", About: "Points of a plane", Options: o, Metrics: example.Metrics(),
		Short: map[string]string{"points": "64"},
		Data: func(string) (evenweave.Sets, error) {
			return evenweave.Sets{Train: example.Points{N: o.Points}, Test: example.Points{N: 100}}, nil
		},
		Model: func(evenweave.Setup) (evenweave.Model, error) {
			if strings.HasPrefix(o.From, "init: ") {
				return odd{example.NewSoftmax(), o.From, o}, nil
			}
			return example.NewSoftmax(), nil
		},
	}
}

// TestALargeStateKeepsLittleGarbage: about 64 MiB of it; a small one the collector's usual share.
func TestALargeStateKeepsLittleGarbage(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(100))
	for elements, want := range map[int]int{1 << 20: 100, 1 << 28: 10, 80 << 20: 16} {
		tidy([]evenweave.Tensor{{Type: evenweave.Float32, Shape: []int{elements}}})
		if got := debug.SetGCPercent(100); got != want {
			t.Errorf("%d elements: %d%%, want %d%%", elements, got, want)
		}
	}
}

// command prepares a command of the tiny task's program, ended with the test.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), beProgram+"=1")
	return cmd
}

// commands are those of the tiny task's program.
func commands(t *testing.T) *cobra.Command {
	t.Helper()
	p, err := newProgram(tiny(), "tiny", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := p.root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// Run is one command line in this process: nil for success, and errors that say what Main would exit with.
func TestRunIsACommandLine(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
	}{
		{[]string{"verify", "--steps", "1"}, exitDone},
		{[]string{"verify", "--steps", "0"}, exitUsage},
		{[]string{"verify", "--points", "0"}, exitUsage},
		{[]string{"verify", "--as", "zx80"}, exitUsage},
		{[]string{"evaluate", "--dir", t.TempDir()}, exitFailed},
	} {
		if c.args[0] == "verify" && c.code == exitDone {
			t.Setenv(beProgram, "1") // verify starts this process's executable once more
		}
		if err := Run(t.Context(), tiny(), c.args...); exitCode(err) != c.code {
			t.Errorf("%v ends with %v, want exit code %d", c.args, err, c.code)
		}
	}
}

// TestWhatAnAuthorGetsWrongIsNamed: without a panic, and by every command.
func TestWhatAnAuthorGetsWrongIsNamed(t *testing.T) {
	for want, wrong := range map[string]func(*evenweave.Task){
		"its option --workers has the name of a flag": func(t *evenweave.Task) {
			t.Options = &struct {
				Workers int `flag:"workers"`
			}{}
		},
		"its option --output has the name of a flag": func(t *evenweave.Task) {
			t.Commands = []evenweave.Command{{Name: "predict", Options: &struct {
				To string `flag:"output"`
			}{}}}
		},
		"panic: no file": func(t *evenweave.Task) {
			t.Data = func(string) (evenweave.Sets, error) { panic("no file") }
		},
		"panic: no device": func(t *evenweave.Task) {
			t.Model = func(evenweave.Setup) (evenweave.Model, error) { panic("no device") }
		},
		"panic: not finished": func(t *evenweave.Task) {
			t.Commands = []evenweave.Command{{Name: "verify",
				Run: func(context.Context, *evenweave.Invocation) error { panic("not finished") }}}
		},
		"Sets.Train is nil": func(t *evenweave.Task) {
			t.Data = func(string) (evenweave.Sets, error) { return evenweave.Sets{}, nil }
		},
		"neither a model nor an error": func(t *evenweave.Task) {
			t.Model = func(evenweave.Setup) (evenweave.Model, error) { return nil, nil }
		},
	} {
		task := tiny()
		wrong(task)
		err := Run(t.Context(), task, "verify")
		if exitCode(err) != exitFailed || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want one with %q", err, want)
		}
	}
}

// checked is a model that knows what it cannot do.
type checked struct {
	evenweave.Model
	batch error
}

func (c checked) CheckBatch(*evenweave.Batch) error { return c.batch }
func (checked) CheckEvaluation() error              { return errors.New("metric near: it is not ready") }

// damaged is data of which the second sample cannot be read.
type damaged struct{ example.Points }

func (d damaged) Load(b *evenweave.Batch) error {
	if b.Samples[1] == 1 {
		panic("no such record")
	}
	return d.Points.Load(b)
}

// TestACertainMistakeIsFoundAtOnce: before a job exists, with the part of the data or of the model.
func TestACertainMistakeIsFoundAtOnce(t *testing.T) {
	points := example.Points{N: 100}
	for _, row := range []struct {
		model evenweave.Model
		test  evenweave.Data
		want  string
		by    string
	}{
		{example.NewSoftmax(), damaged{points}, "the first test samples: panic: no such record", "verify coordinator"},
		{checked{example.NewSoftmax(), errors.New("labels[0] is float32")}, points,
			"the first training samples: labels[0] is float32", "verify coordinator"},
		{checked{example.NewSoftmax(), nil}, points, "on test or held-out samples: metric near: it is not ready",
			"verify coordinator inspect"},
	} {
		for command := range strings.FieldsSeq(row.by) {
			task, args := tiny(), []string{command}
			task.Data = func(string) (evenweave.Sets, error) {
				return evenweave.Sets{Train: points, Test: row.test}, nil
			}
			task.Model = func(evenweave.Setup) (evenweave.Model, error) { return row.model, nil }
			if dir := t.TempDir(); command == "coordinator" { // nothing listens there
				args = append(args, "--dir", dir, "--etcd", "unix:"+dir+"/etcd.sock")
			}
			if err := Run(t.Context(), task, args...); exitCode(err) != exitFailed ||
				!strings.Contains(err.Error(), row.want) {
				t.Errorf("%s: %v, want one with %q", command, err, row.want)
			}
		}
	}
}

// `verify --as` finds the same bits on another processor, fast or by qemu-user. What it cannot try it says, with the
// reasons.
func TestVerifyAsAnotherProcessor(t *testing.T) {
	t.Setenv(beProgram, "1")
	_, cannot := processors.Emulate(t.Context(), "zen3", t.TempDir())
	err := Run(t.Context(), tiny(), "verify", "--steps", "1", "--as", "zen3")
	_, slow := processors.Qemu("zen3")
	if can := cannot == nil || slow == nil; can && err != nil || !can && (exitCode(err) != exitFailed ||
		!strings.Contains(err.Error(), "on another processor (zen3, emulated): "+cannot.Error()+"; "+slow.Error())) {
		t.Errorf("%v; the emulators say %v, %v", err, cannot, slow)
	}
	if _, err := processors.Qemu("zen5"); err == nil || !strings.Contains(err.Error(), "AVX-512") {
		t.Errorf("qemu as zen5: %v", err)
	}
}
func TestWarningsOfQemuAreLeftOut(t *testing.T) {
	const warning = "qemu-x86_64: warning: TCG doesn't support requested feature: CPUID.01H:ECX.pcid [bit 17]\n"
	if got := withoutWarnings(warning + "a notice\n" + warning + "error: x"); got != "a notice\nerror: x" {
		t.Errorf("left: %q", got)
	}
}
