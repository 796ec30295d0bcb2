package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestPlotOfARun(t *testing.T) {
	dir := t.TempDir()
	line := `{"event":"step","time":"2026-01-02T03:04:05Z","step":1,"epoch":1,"loss":0.5}` + "\n"
	if err := os.WriteFile(filepath.Join(dir, "metrics.jsonl"), []byte(line+"not JSON\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	svg := filepath.Join(dir, "curve.svg")
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--dir", dir}, exitDone, "learning-curve.png"}, {[]string{"--dir", dir, "--out", svg}, exitDone,
			"line 2"},
		{[]string{"--dir", dir, "--out", "x.pdf"}, exitUsage, ".svg"},
		{[]string{"--dir", t.TempDir()}, exitFailed, "holds no run"},
	} {
		cmd := command(t, append([]string{"plot"}, c.args...)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != c.code ||
			!strings.Contains(string(out), c.says) {
			t.Errorf("%v: exit code %d, %s", c.args, cmd.ProcessState.ExitCode(), out)
		}
	}
	for name, begin := range map[string]string{"learning-curve.png": "\x89PNG", "curve.svg": "<?xml"} {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !strings.HasPrefix(string(b), begin) {
			t.Errorf("%s: %v, %.20q", name, err, b)
		}
	}
}
