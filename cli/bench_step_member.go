package cli

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"evenweave/internal/job"
	"evenweave/internal/processors"
	"evenweave/worker"
)

// memberSetup is what a process of the benchmark gets on its standard input.
type memberSetup struct {
	Job         job.Job
	Rank, Size  int
	Sockets     string
	Parallelism int
	Data        string
}

// memberReport is what it writes: an empty one when it is ready, then one for each step.
type memberReport struct {
	Parts  worker.Parts
	CPU    time.Duration // of the process, so far
	Memory int64         // the most bytes that it held
}

// stepMember is a process of the benchmark.
type stepMember struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *json.Decoder
}

func (t *stepMember) read(r *memberReport) error { return t.out.Decode(r) }

func (t *stepMember) end() {
	_ = t.in.Close()
	_ = t.cmd.Wait()
}

// start runs the processes, and lets them train when all are ready.
func (b *stepBench) start(ctx context.Context, s memberSetup) (all []*stepMember, err error) {
	executable, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"bench", "step-member"}
	for name, value := range b.program.optionSettings(ownOption) {
		args = append(args, "--"+name+"="+value)
	}
	for rank := range s.Size {
		t := &stepMember{cmd: exec.CommandContext(ctx, executable, args...)}
		t.cmd.Stderr = os.Stderr
		if t.in, err = t.cmd.StdinPipe(); err != nil {
			return all, err
		}
		out, err := t.cmd.StdoutPipe()
		if err != nil {
			return all, err
		}
		t.out = json.NewDecoder(bufio.NewReader(out))
		var own []int
		if b.pin {
			own = processors.Share(processors.Available(), s.Size, rank)
		}
		if err := processors.Start(t.cmd, own); err != nil {
			return all, fmt.Errorf("starting rank %d: %w", rank, err)
		}
		all = append(all, t)
		s.Rank = rank
		if err := json.NewEncoder(t.in).Encode(s); err != nil {
			return all, fmt.Errorf("rank %d: %w", rank, err)
		}
	}
	for rank, t := range all {
		if err := t.read(&memberReport{}); err != nil {
			return all, fmt.Errorf("rank %d did not start: %w", rank, err)
		}
	}
	for _, t := range all {
		if _, err := io.WriteString(t.in, "{}\n"); err != nil {
			return all, err
		}
	}
	return all, nil
}

// benchStepMemberCommand is a process of bench step. It ends when its standard input does.
func (p *program) benchStepMemberCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "step-member", Hidden: true, Args: noArgs, Short: "Be one worker of a benchmark"}
	p.optionFlags(cmd.Flags(), ownOption)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx, cancel := context.WithCancel(cmd.Context())
		defer cancel()
		runtime.GOMAXPROCS(max(2, runtime.GOMAXPROCS(0))) // as a worker
		in := json.NewDecoder(os.Stdin)
		var s memberSetup
		if err := in.Decode(&s); err != nil {
			return err
		}
		log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		opened, err := p.openJob(s.Data, log)(ctx, s.Job)
		if err != nil {
			return err
		}
		defer opened.Model.Close()
		train, stop, err := worker.Measurement{Job: s.Job, Rank: s.Rank, Size: s.Size, Sockets: s.Sockets,
			Parallelism: s.Parallelism, MetricNames: p.task.Metrics, Opened: opened, Log: log}.Open()
		if err != nil {
			return err
		}
		defer stop()
		out := json.NewEncoder(cmd.OutOrStdout())
		if err := out.Encode(memberReport{}); err != nil {
			return err
		}
		if err := in.Decode(&struct{}{}); err != nil { // the message to begin
			return err
		}
		go func() { // its end, while this trains
			_ = in.Decode(&struct{}{})
			cancel()
		}()
		return train(ctx, func(parts worker.Parts) error {
			r := memberReport{Parts: parts}
			r.CPU, r.Memory = processors.Used()
			return out.Encode(r)
		})
	}
	return cmd
}
