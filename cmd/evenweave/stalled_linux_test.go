package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestAReaderThatStallsStopsNothing: no process reads train's output, as with an idle pager; steps and checkpoints go
// on, and two interrupts end it.
func TestAReaderThatStallsStopsNothing(t *testing.T) {
	data := needData(t)
	for output, c := range map[string]struct {
		holdout string
		step    int64 // by which the output exceeds the pipes of 4 KB and 64 KB
	}{
		"json": {"59000", 300}, // a line a step
		"text": {"59992", 60},  // some lines an epoch, each of one step: more than the reader's
	} {
		t.Run(output, func(t *testing.T) {
			dir := t.TempDir()
			ignored(t, dir, c.step, tiny(data, dir, "--workers", "1", "--global-batch", "8", "--micro-batch", "8",
				"--epochs", "100000",
				"--checkpoint-every", fmt.Sprint(c.step), "--holdout", c.holdout, "-o", output)...)
		})
	}
}

// ignored runs train, without reading its output, until it has a checkpoint of the step, and then interrupts
// it.
func ignored(t *testing.T, dir string, step int64, args ...string) {
	t.Helper()
	cmd := program(t, args...)
	reader, writer, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer reader.Close()
	if _, err := unix.FcntlInt(writer.Fd(), unix.F_SETPIPE_SZ, 4096); err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = writer, writer
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Close()
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	limit := time.After(deadline)
	for newest := int64(0); newest < step; {
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ended:
			t.Fatalf("it has ended: %v", cmd.ProcessState)
		case <-limit:
			_ = cmd.Process.Kill()
			t.Fatalf("no checkpoint of step %d; the newest is of step %d", step, newest)
		}
		names, _ := filepath.Glob(filepath.Join(dir, "checkpoints", "step-*.ckpt"))
		for _, name := range names {
			var of, term int64
			if _, err := fmt.Sscanf(filepath.Base(name), "step-%d-term-%d.ckpt", &of, &term); err == nil {
				newest = max(newest, of)
			}
		}
	}
	limit = time.After(deadline)
	for again := time.Tick(500 * time.Millisecond); ; { // two at the same time might arrive as one
		select {
		case <-ended:
			return
		case <-again:
			_ = cmd.Process.Signal(os.Interrupt)
		case <-limit:
			_ = cmd.Process.Kill()
			t.Fatal("interrupts do not end it")
		}
	}
}
