package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/pflag"

	"evenweave"
	"evenweave/internal/example"
)

// TestCommandsReceiveTheModel: a command with Checkpoint gets the trained model and what it was trained with; its
// arguments are what Args says, and are checked before anything is loaded.
func TestCommandsReceiveTheModel(t *testing.T) {
	t.Setenv(beProgram, "1") // train starts this process's executable
	dir := t.TempDir()
	if err := Run(t.Context(), tiny(), "train", "-o", "json", "--dir", dir, "--steps", "3", "--workers", "1",
		"--points", "200"); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		args string
		give []string
		code int
	}{
		{"IMAGE...", nil, exitUsage}, {"IMAGE...", []string{"a", "b"}, exitDone}, {"[TEXT]", nil, exitDone},
		{"[TEXT]", []string{"a", "b"}, exitUsage}, {"FROM [TO]", []string{"a", "b"}, exitDone},
		{"", []string{"a"}, exitUsage},
		{"FROM [TO...]", nil, exitUsage},
	} {
		task, called := tiny(), false
		task.Commands = []evenweave.Command{{Name: "show", Args: row.args, Checkpoint: true,
			Run: func(_ context.Context, c *evenweave.Invocation) error {
				called = true
				first := make([]byte, 4)
				err := c.Model.Read(0, 0, first)
				if err != nil || string(first) == "\x00\x00\x00\x00" || c.Step != 3 || len(c.WeightsSHA256) != 64 ||
					filepath.Dir(filepath.Dir(c.Path)) != dir || task.Options.(*tinyOptions).Points != 200 {
					t.Errorf("%+v with weights %x, options %+v, %v", c.Loaded, first, task.Options, err)
				}
				return nil
			}}}
		err := Run(t.Context(), task, append([]string{"show", "--dir", dir}, row.give...)...)
		if exitCode(err) != row.code || called != (row.code == exitDone) {
			t.Errorf("%q with %q: %v, called: %v", row.args, row.give, err, called)
		}
	}
}

// TestDefaultsAreTheTasks: a task's defaults are those of its commands, and a length in epochs beats one in steps.
func TestDefaultsAreTheTasks(t *testing.T) {
	task := tiny()
	task.Defaults = map[string]string{"steps": "7", "global-batch": "64", "micro-batch": "8"}
	p, err := newProgram(task, "tiny", nil)
	if err != nil {
		t.Fatal(err)
	}
	for give, want := range map[string]int64{"": 7, "--epochs=3": 0, "--steps=5": 5, "--epochs=3 --steps=5": 5} {
		var s specFlags
		s.register(p, pflag.NewFlagSet("", pflag.ContinueOnError))
		if err := s.flags.Parse(strings.Fields(give)); err != nil {
			t.Fatal(err)
		}
		if err := s.check(); err != nil || s.spec.Steps != want || s.spec.GlobalBatch != 64 || s.spec.MicroBatch != 8 {
			t.Errorf("%q: %+v, %v", give, s.spec, err)
		}
	}
	for name, value := range map[string]string{"workers": "3", "steps": "many", "points": "3"} {
		task.Defaults = map[string]string{name: value}
		if _, err := newProgram(task, "tiny", nil); err == nil || !strings.Contains(err.Error(), "--"+name) {
			t.Errorf("%s=%s: %v", name, value, err)
		}
	}
}

// TestMistypedNamesAreCompleted: of commands and of flags; what cannot be set names what can.
func TestMistypedNamesAreCompleted(t *testing.T) {
	task := tiny()
	task.Defaults = map[string]string{"workers": "3"}
	err := Run(t.Context(), task, "status")
	if err == nil || !strings.Contains(err.Error(), "it can set checkpoint-every, epochs, ") {
		t.Errorf("%v", err)
	}
	for want, args := range map[string][]string{
		`unknown command "trian"; did you mean train?`:          {"trian"},
		`unknown command "frobnicate"`:                          {"frobnicate"},
		"unknown flag: --epoch; did you mean --epochs?":         {"train", "--epoch", "3"},
		"unknown flag: --pont; did you mean --pin or --points?": {"train", "--pont=3"},
		"unknown flag: --frobnicate":                            {"train", "--frobnicate"},
		"unknown shorthand flag: 'x' in -x":                     {"train", "-x"},
	} {
		if err := Run(t.Context(), tiny(), args...); exitCode(err) != exitUsage || err.Error() != want {
			t.Errorf("%q: %v, want %q", args, err, want)
		}
	}
}

// spoken is a model that says more of its variables than its tensors do.
type spoken struct{ evenweave.Model }

func (spoken) Variables() []evenweave.Variable {
	return []evenweave.Variable{{Name: "w\x1b", Type: evenweave.Float32, Shape: []int{3, 3}, Role: "trained"},
		{Name: "clock", Type: evenweave.Int64, Role: "equal"}}
}

// TestInspect: it shows tensors, or what the model says of them; what the model refuses is the command's error.
func TestInspect(t *testing.T) {
	says := ""
	for _, row := range []struct {
		model func(evenweave.Model) (evenweave.Model, error)
		args  []string
		code  int
		want  string
	}{
		{func(m evenweave.Model) (evenweave.Model, error) { return m, nil }, nil, exitDone,
			"variable  type     shape  role\nweights   float32  [3 3]  trained\n" +
				"1 variables; 9 numbers are trained, 0 averaged\n"},
		{func(m evenweave.Model) (evenweave.Model, error) { return spoken{m}, nil }, []string{"-o", "json"}, exitDone,
			`"name":"clock","role":"equal","shape":[],"time"`},
		{func(m evenweave.Model) (evenweave.Model, error) { return spoken{m}, nil }, nil, exitDone,
			`clock     int64    []     equal`},
		{func(evenweave.Model) (evenweave.Model, error) {
			return nil, errors.New("variable x depends on call order")
		},
			nil, exitFailed, `task "tiny": variable x depends on call order`},
		{nil, []string{"--points", "0"}, exitUsage, "--points"}, {nil, []string{"--micro-batch", "0"}, exitUsage,
			"micro"},
	} {
		task, out := tiny(), &strings.Builder{}
		task.Model = func(s evenweave.Setup) (evenweave.Model, error) {
			if !s.EvaluateOnly {
				t.Error("the model is opened to train")
			}
			return row.model(example.NewSoftmax())
		}
		err := run(t.Context(), task, nil, out, append([]string{"inspect"}, row.args...))
		if says = out.String(); err != nil {
			says = err.Error()
		}
		if exitCode(err) != row.code || !strings.Contains(says, row.want) || strings.Contains(says, "\x1b") {
			t.Errorf("%v: %s, %v", row.args, says, err)
		}
	}
}
