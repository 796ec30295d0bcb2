package coordinator

import (
	"context"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"evenweave/checkpoint"
	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/state"
)

func TestHealthFailsWhenTheTermIsStuck(t *testing.T) {
	var v health
	now := time.Now()
	if _, ok := v.check(now); !ok {
		t.Error("not healthy before it leads")
	}
	v.does("leading", leadingLimit)
	if line, ok := v.check(now.Add(leadingLimit / 2)); !ok {
		t.Error(line)
	}
	if line, ok := v.check(time.Now().Add(leadingLimit + time.Second)); ok {
		t.Errorf("healthy though stuck: %q", line)
	}
	v.does("campaigning", 0)
	if line, ok := v.check(now.Add(time.Hour)); !ok {
		t.Errorf("a coordinator that stands by may do so for ever: %q", line)
	}
}

// hanging is a file system whose files cannot be read before it is mended.
type hanging struct {
	checkpoint.OS
	entered, mended chan struct{}
}

type hangingFile struct {
	io.ReadSeekCloser
	fs hanging
}

func (h hanging) Open(name string) (io.ReadSeekCloser, error) {
	f, err := h.OS.Open(name)
	return hangingFile{f, h}, err
}

func (f hangingFile) Read(b []byte) (int, error) {
	select {
	case f.fs.entered <- struct{}{}:
	default:
	}
	<-f.fs.mended
	return f.ReadSeekCloser.Read(b)
}

// TestADiskThatHangsKeepsNoOtherFromLeading: a coordinator that cannot read what it takes over is unhealthy after a
// while, so that something ends it; and as soon as it is asked to end, another one leads.
func TestADiskThatHangsKeepsNoOtherFromLeading(t *testing.T) {
	etcd, dir := etcdtest.Start(t, ""), t.TempDir()
	layout, err := state.OfJob(example.NewSoftmax().Tensors())
	if err != nil {
		t.Fatal(err)
	}
	spec := job.Spec{Task: "tiny", Data: "points", Samples: 100, GlobalBatch: 10, MicroBatch: 10, Epochs: 1}
	coordinator := func(id string, fs checkpoint.FS) *Coordinator {
		client, err := cluster.Dial([]string{etcd.Endpoint()}, "job")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { client.Close() })
		store, err := checkpoint.Open(dir+"/checkpoints", checkpoint.Options{FS: fs})
		if err != nil {
			t.Fatal(err)
		}
		c := newCoordinator(Config{Name: "job", Dir: dir, Spec: spec, Backend: "go", Model: example.NewSoftmax(),
			Observer: &eventLog{}, Keep: 3, Log: slog.New(slog.DiscardHandler),
			Limits: policy.Limits{Min: 1, Max: 2, TTL: time.Hour}}, client, store, layout)
		c.self = job.Leader{ID: id, Address: "127.0.0.1:1"}
		return c
	}
	run := func(c *Coordinator) (stop context.CancelFunc, ended chan error) {
		ctx, stop := context.WithCancel(t.Context())
		ended = make(chan error, 1)
		go func() { ended <- c.Run(ctx, nil) }()
		return stop, ended
	}
	disk := hanging{entered: make(chan struct{}), mended: make(chan struct{})}
	one, two := coordinator("one", disk), coordinator("two", nil)
	s := state.New(layout, spec.Samples)
	if _, err := two.archive.write(t.Context(), job.Job{UUID: "u", Spec: spec}, 1,
		state.Seal(s).Stream()); err != nil {
		t.Fatal(err)
	}
	stopOne, oneEnded := run(one)
	<-disk.entered
	stopTwo, twoEnded := run(two)
	now := time.Now()
	if line, ok := one.condition.check(now.Add(openingLimit - time.Minute)); !ok {
		t.Errorf("unhealthy at once: %q", line)
	}
	if line, ok := one.condition.check(now.Add(openingLimit + time.Minute)); ok || !strings.Contains(line, opening) {
		t.Errorf("healthy though its disk hangs: %q", line)
	}
	stopOne()
	late := time.After(time.Minute) // far less than the lease
	for waiting := true; waiting; {
		view, changed := two.views.View()
		if view.Leader != nil && view.Leader.ID == "two" {
			break
		}
		select {
		case <-changed:
		case <-late:
			t.Errorf("leader is %+v, want two", view.Leader)
			waiting = false
		}
	}
	stopTwo()
	close(disk.mended)
	for _, ended := range []chan error{oneEnded, twoEnded} {
		<-ended
	}
}

// TestReadingACheckpointIsNoStandstill: each portion that a coordinator reads as it takes over counts.
func TestReadingACheckpointIsNoStandstill(t *testing.T) {
	cfg := Config{Dir: t.TempDir(), Model: example.NewSoftmax(), Log: slog.New(slog.DiscardHandler),
		Spec: job.Spec{Task: "tiny", Data: "points", Samples: 100, GlobalBatch: 10, MicroBatch: 10, Epochs: 1}}
	client, err := cluster.Dial([]string{"unix:" + t.TempDir() + "/none.sock"}, "job")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	saver, err := openCoordinator(cfg, client)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(saver.archive.layout, cfg.Spec.Samples)
	if _, err := saver.archive.write(t.Context(), job.Job{UUID: "u", Spec: cfg.Spec}, 1,
		state.Seal(s).Stream()); err != nil {
		t.Fatal(err)
	}
	for doing, want := range map[string]bool{opening: true, "leading": false} {
		c, err := openCoordinator(cfg, client) // which has read nothing
		if err != nil {
			t.Fatal(err)
		}
		c.condition.does(doing, openingLimit)
		c.condition.beat = c.condition.beat.Add(-2 * openingLimit)
		if _, err := c.archive.Durable(t.Context()); err != nil {
			t.Fatal(err)
		}
		if line, ok := c.condition.check(time.Now()); ok != want {
			t.Errorf("%s, and a checkpoint is read: healthy %v (%s), want %v", doing, ok, line, want)
		}
	}
}
