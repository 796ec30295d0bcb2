package cli

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/local"
)

// beProgram makes this test binary a program of the tiny task: `train` starts its children from its own executable.
const beProgram = "EVENWEAVE_TEST_BINARY_IS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		Main(tiny())
	}
	os.Exit(m.Run())
}

// tinyOptions are those of the tiny task.
type tinyOptions struct {
	Points int    `flag:"points" help:"points to train on"`
	Slow   bool   `flag:"slow" help:"nothing is slow" spec:"-"`
	From   string `flag:"from" help:"text to start from" spec:"-,create"`
	Hash   string `spec:"hash"`
}

func (o *tinyOptions) Validate() error {
	if o.Points < 1 {
		return errors.New("--points must be at least 1")
	}
	return nil
}

func (o *tinyOptions) Prepare(context.Context) ([]string, error) {
	o.Hash = strings.ToUpper(o.From)
	return nil, nil
}

// tiny is the task of package example.
func tiny() *evenweave.Task {
	o := &tinyOptions{Points: 300}
	return &evenweave.Task{
		Name: "tiny", About: "Points of a plane", Options: o, Metrics: example.Metrics(), Short: map[string]string{"points": "64"},
		Data: func(string) (evenweave.Sets, error) {
			return evenweave.Sets{Train: example.Points{N: o.Points}, Test: example.Points{N: 100}}, nil
		},
		Model: func(evenweave.Setup) (evenweave.Model, error) { return example.NewSoftmax(), nil },
	}
}

// command prepares a command of the tiny task's program, ended with the test.
func command(t *testing.T, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), beProgram+"=1")
	return cmd
}

// commands are those of the tiny task's program.
func commands(t *testing.T) *cobra.Command {
	t.Helper()
	p, err := newProgram(tiny(), "tiny", nil)
	if err != nil {
		t.Fatal(err)
	}
	root, err := p.root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

// startEtcd serves an etcd on a directory until stop is called.
func startEtcd(t *testing.T, dir string) (endpoint string, stop func()) {
	t.Helper()
	client, peer := freePort(t), freePort(t)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	served := make(chan error, 1)
	go func() { served <- local.ServeEtcd(ctx, dir, client, peer, io.Discard) }()
	return "http://" + client, func() {
		t.Helper()
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
