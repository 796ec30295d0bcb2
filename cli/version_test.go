package cli

import (
	"encoding/json"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/processors"
)

func TestVersionSaysWhatTheProgramIs(t *testing.T) {
	task := tiny()
	task.Backends.Versions = func() []evenweave.Version {
		return []evenweave.Version{{Name: "lib", Version: "v2\x1b[31m"}}
	}
	info := &debug.BuildInfo{GoVersion: "go1.99", Main: debug.Module{Path: "host/weave", Version: "v1.2.3"},
		Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc123"}, {Key: "vcs.time", Value: "2026-01-02"},
			{Key: "vcs.modified", Value: "true"}, {Key: "GOOS", Value: "plan9"}, {Key: "GOARCH", Value: "mips"}}}
	var text strings.Builder
	if err := versionOf(task, info).show(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"host/weave v1.2.3", "abc123 of 2026-01-02, with changes", "go1.99 plan9/mips",
		"processor    " + processors.Kind(), "tiny", "lib          v2"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing:\n%s", want, &text)
		}
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Errorf("an escape code of a library's version is printed: %q", text.String())
	}
	text.Reset()
	if err := versionOf(tiny(), &debug.BuildInfo{}).show(&text); err != nil || !strings.Contains(text.String(),
		"commit       unknown") {
		t.Errorf("%v, without a commit:\n%s", err, &text)
	}

	out, err := command(t, "version", "-o", "json").Output()
	var v version
	if err == nil {
		err = json.Unmarshal(out, &v)
	}
	if err != nil || v.Event != "version" || v.Time.IsZero() || v.Task != "tiny" || v.Protocol != job.Protocol ||
		v.Checkpoint != checkpoint.Format || v.Records != job.RecordVersion || v.Processor == "" ||
		!strings.HasPrefix(v.Go, runtime.Version()[:4]) || v.Platform != runtime.GOOS+"/"+runtime.GOARCH {
		t.Errorf("%v: %s", err, out)
	}
}
