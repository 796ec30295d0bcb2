package cli

import (
	"encoding/json"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave/internal/local"
	"evenweave/proto"
)

// TestEscapeCodesAreForTerminals: for those that understand them.
func TestEscapeCodesAreForTerminals(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	if drawable(w, "xterm") {
		t.Error("a pipe is drawn on")
	}
	tty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("no terminals here: ", err)
	}
	defer tty.Close()
	for kind, want := range map[string]bool{"xterm-256color": true, "dumb": false, "": false} {
		if drawable(tty, kind) != want {
			t.Errorf("TERM=%q: %v, want %v", kind, !want, want)
		}
	}
}

// TestStatusOfARunThatIsOver: its record names a pid that another process has, and an etcd that is gone.
func TestStatusOfARunThatIsOver(t *testing.T) {
	dir := t.TempDir()
	record, _ := json.Marshal(local.Record{PID: os.Getpid(), Etcd: "http://127.0.0.1:1", Job: "evenweave"})
	for name, content := range map[string][]byte{"run.json": record, "lock": []byte("1\n")} {
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{{"status"}, {"blame"}, {"scale", "2"}} {
		out, _ := command(t, append(args, "--dir", dir)...).CombinedOutput()
		if !strings.Contains(string(out), "is over") {
			t.Errorf("%v: %s", args, out)
		}
	}
}

// TestStatusCountsWhatIsNotUsed: records that cannot be read, and members of another build.
func TestStatusCountsWhatIsNotUsed(t *testing.T) {
	var calm, troubled strings.Builder
	snapshot{}.show(&calm)
	snapshot{Skipped: []string{"etcd key zz: not JSON", "another"}, OtherProtocol: 3}.show(&troubled)
	if strings.Contains(calm.String(), "skipped") || strings.Contains(calm.String(), "protocol") {
		t.Errorf("without anything to report:\n%s", calm.String())
	}
	for _, want := range []string{"cannot be used: 2; etcd key zz: not JSON", "another protocol: 3"} {
		if !strings.Contains(troubled.String(), want) {
			t.Errorf("%q is missing:\n%s", want, troubled.String())
		}
	}
}

// What one member reports does not end the command.
func TestStatusOfALossThatIsNoNumber(t *testing.T) {
	var s snapshot
	s.measure(&proto.Commit{Loss: math.NaN(), Samples: 10, ComputeNanos: 1e9})
	if line, err := json.Marshal(s); err != nil || s.Loss != nil || *s.SamplesPerSecond != 10 {
		t.Errorf("%s, %v", line, err)
	}
}
