package main

import (
	"bytes"
	"os"
	"os/exec"
	"testing"
	"time"

	"evenweave/internal/local"
	"evenweave/internal/processors"
)

// TestProcessorsMix: a worker on an emulated AVX2 processor (AMD's Zen 3) and one on this processor, in one world, end
// with the weights of one worker.
func TestProcessorsMix(t *testing.T) {
	data := needData(t)
	emulate := emulator(t)
	size := []string{"--global-batch", "4", "--micro-batch", "1", "--steps", "6", "--backend", "xla"}
	one := train(t, tiny(data, t.TempDir(), append(size, "--workers", "1")...)...)

	dir := t.TempDir()
	first := program(t, tiny(data, dir, append(size, "--workers", "1")...)...)
	first.Env = append(first.Env, "EVENWEAVE_MIN_WORKERS=2")
	var out, stderr bytes.Buffer
	first.Stdout, first.Stderr = &out, &stderr
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	second := program(t, "worker", "--etcd", running(t, dir).Etcd, "--data", data, "--parallelism", "1")
	emulate(second)
	said, err := second.CombinedOutput()
	if err != nil {
		t.Errorf("the emulated worker: %v\n%s", err, said)
		_ = first.Process.Signal(os.Interrupt)
	}
	if err := first.Wait(); err != nil || t.Failed() {
		t.Fatalf("%v\n%s\n%s", err, stderr.Bytes(), logs([]string{"--dir", dir}))
	}
	two := lastDone(t, out.Bytes())
	if two.Weights != one.Weights || two.Workers != 2 || two.Step != 6 {
		t.Errorf("weights %s at step %d with %d workers; one worker gives %s\n%s", two.Weights, two.Step, two.Workers,
			one.Weights, said)
	}
}

// running waits for the record of a run in a directory.
func running(t *testing.T, dir string) local.Record {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(deadline); ; {
		if r, err := local.Find(dir); err == nil {
			return r
		}
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("no run is recorded in %s", dir)
		}
	}
}

// emulator returns what has a command run as on another processor: by CPUID that faults, else by qemu-user if
// EVENWEAVE_TEST_QEMU is set, for it is slow.
func emulator(t *testing.T) func(*exec.Cmd) {
	t.Helper()
	zen3, reason := processors.Emulate(t.Context(), "zen3", t.TempDir())
	if reason == nil {
		return func(cmd *exec.Cmd) { cmd.Env = append(cmd.Env, zen3...) }
	}
	qemu, err := processors.Qemu("zen3")
	if err != nil || os.Getenv("EVENWEAVE_TEST_QEMU") == "" {
		t.Skipf(
			"%v; install qemu-user and set EVENWEAVE_TEST_QEMU=1 for a slow one",
			reason)
	}
	return func(cmd *exec.Cmd) {
		cmd.Args = append(append(qemu, cmd.Path), cmd.Args[1:]...)
		cmd.Path = qemu[0]
	}
}
