package chaos

import (
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/progress"
	"evenweave/internal/security"
)

// TestScheduleIsSeeded: the same plan gives the same schedule, another seed another; every kind occurs, and every step
// lies in the job.
func TestScheduleIsSeeded(t *testing.T) {
	for seed := range uint64(200) {
		p := Plan{Seed: seed, Workers: 1 + int(seed%5), Steps: 1 + int64(seed), Kinds: Kinds(),
			CheckpointEvery: int64(seed % 7)}
		faults := p.Schedule()
		if !reflect.DeepEqual(faults, p.Schedule()) {
			t.Fatalf("seed %d: two schedules of one plan differ", seed)
		}
		seen := map[Kind]bool{}
		for i, f := range faults {
			seen[f.Kind] = true
			if f.Step < 0 || f.Step >= p.Steps || i > 0 && f.Step < faults[i-1].Step || f.After < 0 || f.For < 0 {
				t.Fatalf("seed %d: fault %d is %+v, of %d steps", seed, i, f, p.Steps)
			}
			if !slices.IsSorted(f.Ranks) || len(f.Ranks) > 0 && f.Ranks[len(f.Ranks)-1] >= p.Workers {
				t.Fatalf("seed %d: ranks %v of %d", seed, f.Ranks, p.Workers)
			}
		}
		if len(seen) != len(Kinds()) {
			t.Fatalf("seed %d: only %v", seed, seen)
		}
		p.Seed++
		if reflect.DeepEqual(faults, p.Schedule()) {
			t.Fatalf("seeds %d and %d give the same schedule", seed, p.Seed)
		}
	}
	if _, err := Run(t.Context(), Config{Plan: Plan{Workers: 2, Kinds: Kinds()}}, nil); err == nil ||
		!strings.Contains(err.Error(), "0 steps") {
		t.Errorf("a job of no steps: %v", err)
	}
	if k, err := ParseKinds("kill, flip,kill"); err != nil || !slices.Equal(k, []Kind{Kill, Flip}) {
		t.Errorf("kinds %v, %v", k, err)
	}
	if _, err := ParseKinds("kill,typo"); err == nil {
		t.Error("an unknown fault is accepted")
	}
}

// TestAccount is of a run of ten steps of 100 ms in which a kill costs 400 ms and one step is repeated.
func TestAccount(t *testing.T) {
	start := time.Unix(1000, 0)
	at := func(ms int) time.Time { return start.Add(time.Duration(ms) * time.Millisecond) }
	line := Timeline{
		Worlds:      []Mark{{Time: at(-50), Generation: 1}, {Time: at(530), Generation: 2}},
		Accusations: []Mark{{Time: at(510), Generation: 1}},
		Opened:      []Mark{{Time: at(-10), Generation: 1}, {Time: at(560), Generation: 2}},
		Injections: []Injection{
			{Fault: Fault{Kind: Flip}, Time: at(200), Generation: 1},
			{Fault: Fault{Kind: Kill}, Time: at(500), Generation: 1},
			{Fault: Fault{Kind: Leave}, Time: at(1300), Generation: 2, Skipped: "a world of one"},
		},
	}
	for i := range 6 {
		line.Commits = append(line.Commits, Mark{Time: at(100 * i), Generation: 1, Step: int64(i)})
	}
	for i := range 5 {
		line.Commits = append(line.Commits, Mark{Time: at(1000 + 100*i), Generation: 2, Step: int64(5 + i)})
	}
	a := line.Account()
	ms := time.Millisecond
	if len(a.Recoveries) != 1 {
		t.Fatalf("recoveries %+v", a.Recoveries)
	}
	if r := a.Recoveries[0]; r.Kind != Kill || r.Detect != 10*ms || r.World != 30*ms || r.State != 60*ms ||
		r.Commit != 500*ms {
		t.Errorf("recovery %+v", r)
	}
	if a.Step != 100*ms || a.Wall != 1400*ms || a.Useful != 1000*ms || a.Lost[Kill] != 400*ms || a.Redone != 1 {
		t.Errorf("account %+v", a)
	}
	if g := a.Goodput(); g < 0.714 || g > 0.715 {
		t.Errorf("goodput %v", g)
	}
	if got := (Timeline{}).Account(); got.Goodput() != 0 {
		t.Errorf("of nothing: %+v", got)
	}
	if p := percentile([]time.Duration{4, 1, 3, 2}, 50); p != 2 {
		t.Errorf("median %d", p)
	}
}

// TestCutHoldsBack: a cut delays the traffic that it names until its end, and not the other direction.
func TestCutHoldsBack(t *testing.T) {
	n := newNetwork(true)
	defer n.close()
	sockets, err := security.MakeSockets()
	if err != nil {
		t.Fatal(err)
	}
	defer security.RemoveSockets(sockets)
	over := security.For([]string{"unix:" + sockets + "/etcd.sock"})
	backend, err := over.Listen("unix:back.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer backend.Close()
	n.started("client", os.Getpid())
	if _, err := n.serve(over, "unix:front.sock", "", "server", "unix:back.sock"); err != nil {
		t.Fatal(err)
	}
	client, err := over.Dial(t.Context(), "unix:front.sock")
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	server, err := backend.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	deadline := time.Now().Add(3 * time.Minute)
	_ = client.SetDeadline(deadline)
	_ = server.SetDeadline(deadline)
	expect := func(from net.Conn, want string) {
		t.Helper()
		b := make([]byte, len(want))
		if _, err := io.ReadFull(from, b); err != nil || string(b) != want {
			t.Fatalf("got %q, %v; want %q", b, err, want)
		}
	}
	send := func(to net.Conn, s string) {
		t.Helper()
		if _, err := io.WriteString(to, s); err != nil {
			t.Fatal(err)
		}
	}
	send(client, "before")
	expect(server, "before")
	name := "client"
	if peerPID(client) < 0 { // this system does not say which process dials
		name = ""
	}
	held := make(chan struct{})
	restore := n.cut(func(src, dst string) bool {
		if src != name || dst != "server" {
			return false
		}
		select {
		case <-held:
		default:
			close(held)
		}
		return true
	})
	send(client, "during")
	<-held // the bytes have reached the cut
	send(server, "back")
	expect(client, "back")
	restore()
	expect(server, "during")
}

func TestDifferences(t *testing.T) {
	figures := []evenweave.Figure{{Name: "accuracy", Value: 0.5}}
	of := func(change func(*Result)) *Result {
		r := newResult()
		r.Observe(progress.Record{Event: progress.Step{Step: 3, Loss: 0.25}})
		r.Observe(progress.Record{Event: progress.Evaluation{Step: 3, Figures: figures}})
		r.Observe(progress.Record{Event: progress.Done{Step: 3, WeightsSHA256: "w", Fingerprint: "f",
			Figures: figures}})
		r.checkpoints[3], r.ledger = "f", "l"
		if change != nil {
			change(r)
		}
		return r
	}
	again := func(loss float64) func(*Result) {
		return func(r *Result) { r.Observe(progress.Record{Event: progress.Step{Step: 3, Loss: loss}}) }
	}
	for _, change := range []func(*Result){func(r *Result) { r.checkpoints[2] = "halt" }, again(0.25)} {
		if d := of(nil).Differences(of(change)); len(d) != 0 {
			t.Errorf("equal runs differ: %v", d)
		}
	}
	for name, change := range map[string]func(*Result){
		"weights":                   func(r *Result) { r.done.WeightsSHA256 = "x" },
		"fingerprint":               func(r *Result) { r.done.Fingerprint = "x" },
		"step":                      func(r *Result) { r.done.Step = 2 },
		"accuracy":                  func(r *Result) { r.done.Figures = nil },
		"ledger":                    func(r *Result) { r.ledger = "x" },
		"loss of a step done again": again(0.5),
		"missing evaluation":        func(r *Result) { delete(r.evaluations, 3) },
		"missing checkpoint":        func(r *Result) { delete(r.checkpoints, 3) },
		"checkpoint":                func(r *Result) { r.checkpoints[3] = "x" },
	} {
		if d := of(nil).Differences(of(change)); len(d) != 1 {
			t.Errorf("%s: %v", name, d)
		}
	}
}
