package cli

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

func TestUnknownVariablesAreNamed(t *testing.T) {
	var out bytes.Buffer
	warnUnknown(&out, commands(t), []string{"HOME=/", "EVENWEAVE_GLOBAL_BATCH=1", "EVENWEAVE_IMAGE=x",
		"EVENWEAVE_TEST_X=1", "EVENWEAVE_PLUGIN_DIR=", "EVENWEAVE_WORKER=3", "EVENWEAVE_GLOBALBATCH=8"})
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != 3 {
		t.Fatalf("%q, want three warnings", lines)
	}
	for i, want := range [][2]string{{"EVENWEAVE_PLUGIN_DIR", ""}, {"EVENWEAVE_WORKER ", "EVENWEAVE_WORKERS"},
		{"EVENWEAVE_GLOBALBATCH", "EVENWEAVE_GLOBAL_BATCH"}} {
		if !strings.Contains(lines[i], want[0]) || !strings.HasSuffix(lines[i], want[1]) {
			t.Errorf("%q, want %q and the nearest, %q", lines[i], want[0], want[1])
		}
	}
}

// TestEmptyVariablesAreNamed: an empty text is refused by the name that it was given by, where the default is none.
func TestEmptyVariablesAreNamed(t *testing.T) {
	for command, names := range map[string][]string{"train": {"DIR", "OUTPUT", "EPOCHS"},
		"worker": {"ETCD", "TTL", "JOB"}} {
		for _, name := range names {
			t.Run(command+" "+name, func(t *testing.T) {
				t.Setenv(variables+name, "")
				cmd, _, err := commands(t).Find([]string{command})
				if err != nil {
					t.Fatal(err)
				}
				if err := fromEnvironment(cmd.Flags()); exitCode(err) != exitUsage ||
					!strings.Contains(err.Error(), variables+name) {
					t.Errorf("%v, want bad usage that names the variable", err)
				}
			})
		}
	}
	train, _, _ := commands(t).Find([]string{"train"})
	if err := errors.Join(train.Flags().Parse([]string{"--http", ""}), fromEnvironment(train.Flags())); err != nil {
		t.Errorf("%v, want no page", err)
	}
	t.Setenv("EVENWEAVE_HTTP", "")
	cmd, _, _ := commands(t).Find([]string{"worker"})
	if err := cmd.Flags().Parse([]string{"--etcd", "", "--advertise", ""}); err != nil {
		t.Fatal(err)
	}
	if err := fromEnvironment(cmd.Flags()); err == nil || strings.Count(err.Error(), "empty") != 1 ||
		!strings.Contains(err.Error(), "--etcd") {
		t.Errorf("%v, want only --etcd refused: the others may be empty", err)
	}
}
