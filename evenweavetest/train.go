package evenweavetest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// Main is for a TestMain: it makes the test's binary the program too, for Train starts it as that.
//
//	func TestMain(m *testing.M) { evenweavetest.Main(m, main) }
func Main(m *testing.M, program func()) {
	if len(os.Args) > 1 && !strings.HasPrefix(os.Args[1], "-test.") {
		program()
		return
	}
	ClearVariables()
	os.Exit(m.Run())
}

// ClearVariables removes the EVENWEAVE_ variables from the environment, except those of tests: the commands that a
// test runs would read them. Main does this; call it in another TestMain, which is the program itself in some way.
func ClearVariables() {
	for _, entry := range os.Environ() {
		name, _, _ := strings.Cut(entry, "=")
		if strings.HasPrefix(name, "EVENWEAVE_") && !strings.HasPrefix(name, "EVENWEAVE_TEST_") {
			_ = os.Unsetenv(name) // fails for malformed names only
		}
	}
}

// Result is how a run ended.
type Result struct {
	Step, Epoch, Workers, Generation int
	Weights                          string             // SHA-256, in hexadecimal
	Figures                          map[string]float64 // of the last evaluation, by name
}

// SameWeights trains with 1, 2 and 3 workers, and then with 3 of which one is killed, by `train ARGS`. It fails the
// test unless all end with the same weights and figures, and returns those. Choose a length of some hundred steps for a
// model whose steps take less than a millisecond, so that the kill comes before the end.
func SameWeights(t testing.TB, args ...string) Result {
	t.Helper()
	first := Train(t, append([]string{"--workers", "1"}, args...)...)
	for _, workers := range []int{2, 3} {
		r := again(t, false, workers, args, func(r Result) bool { return r.Workers == workers })
		if r.Workers != workers {
			t.Errorf("evenweave: %d workers were at the end, expected %d: train for more steps", r.Workers, workers)
		}
		same(t, first, r, fmt.Sprintf("%d workers", workers))
	}
	r := again(t, true, 3, args, func(r Result) bool { return r.Generation >= 2 })
	if r.Generation < 2 {
		t.Errorf("evenweave: the run was over before a worker was killed: train for more steps")
	}
	same(t, first, r, "3 workers, one killed")
	return first
}

// again trains until a run is as it should be, at most five times: on a busy machine a worker, or the kill of one, may
// come after the last step.
func again(t testing.TB, kill bool, workers int, args []string, good func(Result) bool) (r Result) {
	t.Helper()
	for range 5 {
		r = train(t, kill, append([]string{"--workers", fmt.Sprint(workers)}, args...))
		if good(r) {
			break
		}
	}
	return r
}

func same(t testing.TB, one, other Result, what string) {
	t.Helper()
	if one.Weights != other.Weights || fmt.Sprint(one.Figures) != fmt.Sprint(other.Figures) {
		t.Errorf("evenweave: %s: weights %s, %v; one worker: %s, %v", what, other.Weights, other.Figures, one.Weights,
			one.Figures)
	}
}

// Train runs `train ARGS` in a directory of its own, to the end; TestMain must call Main.
func Train(t testing.TB, args ...string) Result {
	t.Helper()
	return train(t, false, args)
}

// train kills one worker of the first world, if it should.
func train(t testing.TB, kill bool, args []string) Result {
	t.Helper()
	args = append([]string{"train", "-o", "json", "--dir", t.TempDir()}, args...)
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatalf("evenweave: %v", err)
	}
	last, killed, figures := []byte(nil), error(nil), map[string]float64{}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		last = bytes.Clone(lines.Bytes())
		if f := figuresOf(last); len(f) > 0 {
			figures = f
		}
		if pid := workerOf(last); kill && pid > 0 {
			kill, killed = false, end(pid)
		}
	}
	if err := cmd.Wait(); err != nil || killed != nil || lines.Err() != nil {
		t.Fatalf("evenweave: %s: %v, %v, %v\n%s", strings.Join(args, " "), err, killed, lines.Err(), stderr.String())
	}
	r, err := resultOf(last)
	if err != nil {
		t.Fatalf("evenweave: %s ends with %q: %v", strings.Join(args, " "), last, err)
	}
	r.Figures = figures
	return r
}

// figuresOf reads the figures of an evaluation, the test set's; nil if the line is of something else.
func figuresOf(line []byte) map[string]float64 {
	var evaluation struct {
		Event   string
		Figures []struct {
			Name  string
			Value float64
		}
	}
	if json.Unmarshal(line, &evaluation) != nil || evaluation.Event != "evaluation" {
		return nil
	}
	figures := map[string]float64{}
	for _, f := range evaluation.Figures {
		figures[f.Name] = f.Value
	}
	return figures
}

// workerOf returns the process of the last rank, if the line announces a world; else 0.
func workerOf(line []byte) int {
	var world struct {
		Event   string
		Members []struct{ PID int }
	}
	if json.Unmarshal(line, &world) != nil || world.Event != "world" || len(world.Members) == 0 {
		return 0
	}
	return world.Members[len(world.Members)-1].PID
}

func end(pid int) error {
	p, err := os.FindProcess(pid)
	if err != nil {
		return err
	}
	if err = p.Kill(); errors.Is(err, os.ErrProcessDone) {
		return nil // so is the run, or soon
	}
	return err
}

// resultOf reads the last line of a run.
func resultOf(line []byte) (r Result, err error) {
	var done struct {
		Event                            string
		Step, Epoch, Workers, Generation int
		Weights                          string `json:"weights_sha256"`
	}
	if err := json.Unmarshal(line, &done); err != nil {
		return r, err
	}
	if done.Event != "done" || done.Weights == "" {
		return r, fmt.Errorf("the event is %q, expected done with weights", done.Event)
	}
	return Result{Step: done.Step, Epoch: done.Epoch, Workers: done.Workers, Generation: done.Generation,
		Weights: done.Weights}, nil
}
