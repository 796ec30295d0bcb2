package cli

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"evenweave/coordinator"
	"evenweave/internal/local"
)

// TestAProgramSpeaksInItsOwnName: help, errors and logs of a user's program name that program. The tool's name stands
// only where it means the tool: in variables and in the default name of the job.
func TestAProgramSpeaksInItsOwnName(t *testing.T) {
	task := tiny()
	task.Name = "softmax"
	p, err := newProgram(task, "softmax", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := p.commandLine(io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	var visit func(cmd *cobra.Command)
	visit = func(cmd *cobra.Command) {
		var out bytes.Buffer
		cmd.SetOut(&out)
		if err := cmd.Help(); err != nil {
			t.Fatal(err)
		}
		texts["help of "+cmd.CommandPath()] = out.String()
		for _, c := range cmd.Commands() {
			visit(c)
		}
	}
	visit(root)
	_, nothing := local.Find(t.TempDir())
	for what, err := range map[string]error{
		"no run": nothing, "standby": coordinator.ErrStandby, "usage": usagef("unknown command %q", "x"),
		"many lines":      errors.Join(errors.New("one"), errors.New("see `evenweave blame`")),
		"no length":       p.runIn(t, "train", "--epochs", "0"),
		"no run to scale": p.runIn(t, "scale", "3", "--dir", t.TempDir()),
	} {
		var out bytes.Buffer
		if report(namedWriter{&out, "softmax"}, "softmax", err); out.Len() == 0 {
			t.Errorf("%s: nothing is said", what)
		}
		texts["error: "+what] = out.String()
	}
	var logged bytes.Buffer
	slog.New(slog.NewTextHandler(namedWriter{&logged, "softmax"}, nil)).Warn("see `evenweave status`")
	texts["log"] = logged.String()

	if len(texts) < 25 {
		t.Errorf("only %d texts", len(texts))
	}
	for what, text := range texts {
		for line := range strings.Lines(text) {
			left := strings.ReplaceAll(line, `(default "evenweave")`, "")
			if strings.Contains(left, "evenweave") {
				t.Errorf("%s: %s", what, strings.TrimSpace(line))
			}
		}
	}
	for _, what := range []string{"error: no run", "error: standby", "error: many lines", "log"} {
		if !strings.Contains(texts[what], "`softmax ") {
			t.Errorf("%s: %q does not name a command of softmax", what, texts[what])
		}
	}
}

// runIn runs a command line in this process.
func (p *program) runIn(t *testing.T, args ...string) error {
	root, err := p.commandLine(io.Discard, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	root.SetArgs(args)
	return root.ExecuteContext(t.Context())
}
