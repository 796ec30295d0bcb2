package local

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

const diskFull = "no space left on device"

// reason returns the line of a process's log that says why it ended: its error, else its panic, else the last line. A
// full disk comes before all of them, because it causes other errors. After a panic the last line is only the end of a
// stack.
func reason(log []byte) string {
	lines := bytes.Split(bytes.TrimSpace(log), []byte("\n"))
	find := func(is func(line string) bool) string {
		for _, l := range slices.Backward(lines) {
			if is(string(l)) {
				return clean(string(l))
			}
		}
		return ""
	}
	begins := func(prefix string) func(string) bool {
		return func(line string) bool { return strings.HasPrefix(line, prefix) }
	}
	const last = 100 // lines: more than the stack of a panic has
	recent := lines[max(0, len(lines)-last):]
	for _, l := range slices.Backward(recent) {
		if strings.Contains(string(l), diskFull) {
			return clean(string(l))
		}
	}
	for _, is := range []func(string) bool{
		begins("error: "),
		crashed,
		begins(`{"level":"panic"`), begins(`{"level":"fatal"`),
		func(string) bool { return true },
	} {
		if line := find(is); line != "" {
			return line
		}
	}
	return "it said nothing"
}

// crashed says that a line is of Go's runtime.
func crashed(line string) bool {
	return slices.ContainsFunc([]string{"panic: ", "fatal error: ", "runtime: "},
		func(p string) bool { return strings.HasPrefix(line, p) })
}

// clean returns the message and the error of a log line in JSON, and a line of text without its prefix.
func clean(line string) string {
	var entry struct{ Msg, Error string }
	if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg != "" {
		line = strings.TrimSuffix(entry.Msg+": "+entry.Error, ": ")
	}
	return strings.TrimPrefix(line, "error: ")
}

func describeSignal(signal syscall.Signal) string {
	text := fmt.Sprintf("signal %d (%v)", int(signal), signal)
	if signal == syscall.SIGKILL {
		text += ", by hand or for lack of memory (see dmesg)"
	}
	return text
}

// tail returns why a process ended, by its log, for the terminal.
func (s *supervisor) tail(p *process) string {
	const most = 256 << 10
	path := s.logPath(p.name)
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	from := max(p.logged, info.Size()-most)
	b, err := io.ReadAll(io.NewSectionReader(f, from, max(0, info.Size()-from)))
	if err != nil {
		return err.Error()
	}
	text := reason(b)
	if p.name == "etcd" && !strings.Contains(text, diskFull) {
		text += fmt.Sprintf("; if its data are damaged, delete %s: the run goes on from its newest checkpoint",
			filepath.Join(s.cfg.Dir, "etcd"))
	}
	return fmt.Sprintf("%s (log: %s)", text, path)
}
