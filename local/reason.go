package local

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

const diskFull = "no space left on device"

// reason is the line of a process's log that says why it ended: its error, else what it panicked with, else the last line. A full disk comes first,
// for what follows from it says nothing. The last line alone would be the end of a stack.
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
	begins := func(prefixes ...string) func(string) bool {
		return func(line string) bool {
			return slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(line, p) })
		}
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
		begins("panic: ", "fatal error: ", "runtime: "),
		begins(`{"level":"panic"`, `{"level":"fatal"`),
		func(string) bool { return true },
	} {
		if line := find(is); line != "" {
			return line
		}
	}
	return "it said nothing"
}

// clean takes what is for machines from a line.
func clean(line string) string {
	var entry struct{ Msg, Error string }
	if json.Unmarshal([]byte(line), &entry) == nil && entry.Msg != "" {
		line = strings.TrimSuffix(entry.Msg+": "+entry.Error, ": ")
	}
	return strings.TrimPrefix(line, "error: ")
}
