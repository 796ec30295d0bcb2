package local_test

import (
	"context"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"evenweave/coordinator"
	"evenweave/internal/cluster"
	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/worker"
)

// load is how many callers there are at once.
type load struct {
	silent int           // connections to each port, that say nothing
	asking int           // connections that ask for states, 32 at once each
	pace   time.Duration // of a worker's micro-batches, of which a step has four
}

// TestLoadStopsNoStep: callers that say nothing, say it slowly, ask for much and read nothing, or come again and again,
// with a stolen certificate too, cost a bounded amount of memory, stop no step, and are all given up. While some still
// come all certificates are renewed twice, and afterwards a worker joins.
func TestLoadStopsNoStep(t *testing.T) {
	// Fewer than the places of a port, so that all are given up in one round.
	load{silent: 30, asking: 10, pace: 50 * time.Millisecond}.stopsNoStep(t)
}

// TestHeavyLoadStopsNoStep: the same with 10,000 silent connections, which fill the places of each port again and
// again, and more than 1,000 states. It takes six minutes.
func TestHeavyLoadStopsNoStep(t *testing.T) {
	if os.Getenv("EVENWEAVE_TEST_LOAD") == "" {
		t.Skip("takes six minutes: run `make test-load`")
	}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	files.Cur = files.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		t.Fatal(err)
	}
	silent := min(2000, (int(min(files.Max, 1<<20))-2000)/5)
	t.Logf("this process may have %d descriptors: %d silent connections to each port", files.Max, silent)
	load{silent: silent, asking: 34, pace: 250 * time.Millisecond}.stopsNoStep(t)
}

func (l load) stopsNoStep(t *testing.T) {
	evaluates := func(c *coordinator.Config) { c.Model = wideTask{newWide()} }
	s := startSecured(t, 600, evaluates)
	s.pace = l.pace
	endpoint := etcd(t)
	calm := startCoordinator(t, endpoint, t.TempDir(), spec(s.steps), evaluates)
	ended(t, "the calm run", startWorker(endpoint, "w", wideOf(func(int64) {})).done, nil)
	want := await(t, calm.events, "its end", anyOf[progress.Done])
	opens := func(c *worker.Config) { c.Open = wideOf(s.gate) }
	s.hire("a", time.Hour, opens)
	s.hire("b", time.Hour, opens)
	operator := s.authority.over("operator", security.Operator, "test")
	together(t, s.events, 2)
	await(t, s.events, "a step", func(e progress.Step) bool { return e.Step > int(s.steps/3) })
	var v cluster.View
	until(t, "both are in the world", func() bool {
		v = records(t, operator, s.endpoint())
		return v.World.Size() == 2 && len(v.Members) == 2
	})
	a, b := v.Members[0].Address, v.Members[1].Address
	before := heap()

	ctx, stop := context.WithCancel(t.Context())
	var callers, dripping sync.WaitGroup
	defer callers.Wait()
	defer dripping.Wait()
	defer stop()
	stolen := s.over["b"]
	var states requests
	asking, enough := context.WithCancel(ctx)
	defer enough()
	ask := func(i int) {
		c := calls(t, stolen, []string{a, b}[i%2])
		callers.Go(func() { states.asks(asking, c, v.Job.UUID, int64(s.events.lastStep())) })
		s.stepOn("a step", i%2) // one state a step of two connections
	}
	for i := 0; i < l.asking || states.sending.Load() == 0 && i < l.asking+16; i++ {
		ask(i)
	}
	for i := range 8 {
		c := calls(t, stolen, []string{a, b}[i%2])
		dripping.Go(c.saysHello)
	}
	ports := []string{s.pages, s.open, v.Leader.Address, a, b}
	for name, d := range s.drips(stolen, operator, ports, a) {
		dripping.Go(func() { d.givenUp(t, name) })
	}
	var silent []net.Conn
	for _, port := range ports {
		callers.Go(func() { comesAgain(ctx, port) })
		silent = append(silent, fills(t, port, l.silent)...)
	}
	s.stepOn("steps under load", 5)
	until(t, "most requests for states are refused", func() bool {
		return states.ended.Load()+states.sending.Load() == states.asked.Load()
	})
	grown, sending := heap()-before, states.sending.Load()
	t.Logf("%d silent connections, %d states asked for, of which %d are sent and not read: %d MiB of memory",
		len(silent), states.asked.Load(), sending, grown>>20)
	if grown > 64<<20 {
		t.Errorf("the load took %d bytes of memory", grown)
	}
	if sending == 0 || sending > 2*4 {
		t.Errorf("%d states are being sent, expected four of each member at most", sending)
	}
	begun := time.Now()
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(deadline))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Fatalf("a silent caller: %v, expected the end of the connection", err)
		}
		_ = c.Close()
	}
	dripping.Wait()
	t.Logf("all are given up after %v", time.Since(begun).Round(time.Second))
	if l.asking > 10 { // more than a minute later: the first have lost their places
		for i := 0; states.sending.Load() == sending && i < 16; i++ {
			ask(i)
		}
		if states.sending.Load() == sending {
			t.Errorf("after %v no other state is sent: callers that read nothing keep their places", time.Since(begun))
		}
	}
	enough() // a member that needs a state waits for a place, and its key is the callers'
	for i := range 2 {
		s.renewAll(operator, time.Duration(i+2)*time.Hour)
	}
	stop()
	callers.Wait()
	if n := states.strange.Load(); n > 0 {
		t.Errorf("%d replies are neither a refusal nor a state", n)
	}
	s.stepOn("steps after it", 5)
	s.hire("c", time.Hour, opens)
	together(t, s.events, 3)
	if why := s.unplanned(v.World.Generation); len(why) > 0 {
		t.Errorf("the load broke a step: %q", why)
	}
	s.finish(want)
}

// heap is the memory in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

// fills makes n connections to a port.
func fills(t *testing.T, port string, n int) (all []net.Conn) {
	t.Helper()
	for range n {
		c, err := net.DialTimeout("tcp", port, deadline)
		if err != nil {
			t.Fatalf("connection %d of %d: %v: does this machine hold as many that are not accepted "+
				"(net.core.somaxconn)?", len(all), n, err)
		}
		t.Cleanup(func() { _ = c.Close() })
		all = append(all, c)
	}
	return all
}

// comesAgain makes and drops ten connections a second.
func comesAgain(ctx context.Context, port string) {
	for waits(ctx, 100*time.Millisecond) {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", port); err == nil {
			_ = c.Close()
		}
	}
}

func waits(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// requests counts requests for states.
type requests struct {
	asked, sending, ended atomic.Int64 // sending: the reply has begun
	strange               atomic.Int64 // ended otherwise than refused
}
