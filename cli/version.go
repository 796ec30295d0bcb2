package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/processors"
)

// version is what `version` prints: all that decides whether two programs understand each other, and compute the same.
type version struct {
	Event      string              `json:"event"`
	Time       time.Time           `json:"time"`
	Task       string              `json:"task"`
	Module     string              `json:"module"`
	Version    string              `json:"version"`
	Commit     string              `json:"commit,omitempty"`
	CommitTime string              `json:"commit_time,omitempty"`
	Modified   bool                `json:"modified"` // there were changes beside the commit
	Go         string              `json:"go"`
	Platform   string              `json:"platform"`
	Processor  string              `json:"processor"`
	Experiment string              `json:"experiment,omitempty"`
	Protocol   int                 `json:"protocol"`
	Records    int                 `json:"records"`
	Checkpoint int                 `json:"checkpoint_format"`
	Uses       []evenweave.Version `json:"uses"`
}

// versionOf reads what the linker wrote into the program.
func versionOf(t *evenweave.Task, info *debug.BuildInfo) version {
	v := version{Event: "version", Time: time.Now(), Task: t.Name, Module: info.Main.Path, Version: info.Main.Version,
		Go: info.GoVersion, Protocol: job.Protocol, Records: job.RecordVersion, Checkpoint: checkpoint.Format,
		Uses: []evenweave.Version{}, Processor: processors.Kind()}
	settings := map[string]string{}
	for _, s := range info.Settings {
		settings[s.Key] = s.Value
	}
	v.Commit, v.CommitTime, v.Experiment = settings["vcs.revision"], settings["vcs.time"], settings["GOEXPERIMENT"]
	v.Modified, v.Platform = settings["vcs.modified"] == "true", settings["GOOS"]+"/"+settings["GOARCH"]
	if t.Backends.Versions != nil {
		v.Uses = append(v.Uses, t.Backends.Versions()...)
	}
	return v
}

func (v version) show(w io.Writer) error {
	commit := "unknown: this program was built without it (-buildvcs=false, or not from a repository)"
	if v.Commit != "" {
		commit = v.Commit + " of " + v.CommitTime
		if v.Modified {
			commit += ", with changes"
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row := func(name, value string) { fmt.Fprintf(t, "%s\t%s\n", job.Clean(name), job.Clean(value)) }
	row("module", v.Module+" "+v.Version)
	row("commit", commit)
	row("go", strings.TrimSpace(v.Go+" "+v.Platform+" "+v.Experiment))
	row("processor", v.Processor)
	row("task", v.Task)
	for _, u := range v.Uses {
		row(u.Name, u.Version)
	}
	row("protocol", fmt.Sprintf("%d, records %d", v.Protocol, v.Records))
	row("checkpoints", fmt.Sprintf("format %d", v.Checkpoint))
	return t.Flush()
}

func (p *program) versionCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "version", Short: "Say what this program was built from, and what it speaks, reads and computes with",
		Args: noArgs,
		Long: `Members of one job need the same protocol, the same plug-in and the same versions of what computes.
A checkpoint is read by programs of its format.`,
	}
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		info, ok := debug.ReadBuildInfo()
		if !ok {
			info = &debug.BuildInfo{}
		}
		v := versionOf(p.task, info)
		if *output == "json" {
			return json.NewEncoder(cmd.OutOrStdout()).Encode(v)
		}
		return v.show(cmd.OutOrStdout())
	}
	return cmd
}
