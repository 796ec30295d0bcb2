package policy

import (
	"bufio"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"evenweave/internal/job"
)

var update = flag.Bool("update", false, "write the transcripts in testdata again")

// TestTranscripts replays testdata/*.txt: each line is an input, the indented lines below it are the policy's actions.
//
//	limits min=1 max=4 expect=2      first line
//	register a [ADDRESS] / leave a / gone a      a's registration: made, marked as leaving, lost
//	join a [ADDRESS]                 a registers and reports
//	settle                           etcd has the published world now
//	commits a [7] / holds a 12       a reports: it committed a step of the present generation, or holds that one
//	agrees a [7]                     a reports: all members of the present generation had one state
//	restarts a [fails]               a reports: another process of its id is in this generation, without a state
//	rests a [12]                     a reports: it is free to enter a world, with no state or with that one
//	fetches a                        a reports: it catches up, to enter a world with the state
//	waits a                          a reports: its collective takes long
//	fails a b KIND [paused|connect|accept] [@2]     a reports: its collective failed because of b ("-": none)
//	probed a alive|refused|silent    a probe comes back
//	unfollowed a                     a's stream ends
//	durable 12 / halt / wait 3s
//	unpublished                      the transaction of the published world failed
//	successor                        another coordinator takes over: a new policy, the same etcd
func TestTranscripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no transcripts in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			before, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			after := replay(t, string(before))
			if *update {
				if err := os.WriteFile(file, []byte(after), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if after != string(before) {
				t.Errorf("%s differs from the policy's actions (write them with -update if they are right):\n%s",
					file, after)
			}
		})
	}
}

// stage surrounds the policy in a transcript: a clock and an etcd.
type stage struct {
	policy *Policy
	limits Limits
	now    time.Time
	etcd   Observed
	next   *job.World // published, not yet observed
	out    []string
	step   int64 // committed
}

func replay(t *testing.T, script string) string {
	t.Helper()
	s := &stage{now: time.Unix(0, 0)}
	var b strings.Builder
	lines := bufio.NewScanner(strings.NewReader(script))
	for lines.Scan() {
		line := lines.Text()
		if strings.HasPrefix(line, "    ") {
			continue
		}
		fmt.Fprintln(&b, line)
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if err := s.play(words[0], append(words[1:], "", "", "", "")); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		for _, o := range s.out {
			fmt.Fprintln(&b, "    "+o)
		}
		s.out = nil
	}
	return b.String()
}

func (s *stage) play(verb string, args []string) error {
	member := args[0]
	i := slices.IndexFunc(s.etcd.Members, func(m job.Member) bool { return m.ID == member })
	s.etcd.Members = slices.Clone(s.etcd.Members)
	report := Report{Member: member}
	if s.etcd.World != nil {
		report.Generation = s.etcd.World.Generation
	}
	switch verb {
	case "limits":
		s.limits = Limits{TTL: 5 * time.Second, ExpectFor: 20 * time.Second}
		for _, a := range args {
			name, value, _ := strings.Cut(a, "=")
			n, _ := strconv.Atoi(value)
			switch name {
			case "min":
				s.limits.Min = n
			case "max":
				s.limits.Max = n
			case "expect":
				s.limits.Expect = n
			}
		}
		s.policy = New("job", "here", 0, s.limits)
	case "successor":
		s.policy, s.next = New("job", "there", s.policy.durableStep, s.limits), nil
		s.feed(s.etcd)
	case "join", "register":
		m := job.Member{ID: member, Address: member + ":1", Numerics: "n", Protocol: job.Protocol}
		if args[1] != "" {
			m.Address = args[1]
		}
		if i < 0 {
			s.etcd.Members = append(s.etcd.Members, m)
		} else {
			s.etcd.Members[i] = m
		}
		s.feed(s.etcd)
		if verb == "join" {
			s.feed(Report{Member: member, Step: -1, Resting: true})
		}
	case "leave":
		s.etcd.Members[i].Leaving = true
		s.feed(s.etcd)
	case "gone":
		s.etcd.Members = slices.Delete(s.etcd.Members, i, i+1)
		s.feed(s.etcd)
	case "settle":
		s.settle()
	case "restarts":
		report.Step = -1
		if args[1] == "fails" {
			report.Accusation = &Accusation{Kind: KindBroken}
		}
		s.feed(report)
	case "commits", "agrees":
		report.Committed, report.Agreed = verb == "commits", true
		if args[1] != "" {
			s.step, _ = strconv.ParseInt(args[1], 10, 64)
		}
		report.Step = s.step
		s.feed(report)
	case "holds":
		report.Holding = true
		report.Step, _ = strconv.ParseInt(args[1], 10, 64)
		s.feed(report)
	case "rests":
		rests := Report{Member: member, Step: -1, Resting: true}
		if args[1] != "" {
			rests.Step, _ = strconv.ParseInt(args[1], 10, 64)
			rests.Generation = 1
		}
		s.feed(rests)
	case "fetches":
		s.feed(Report{Member: member, Step: -1, CatchingUp: true})
	case "waits":
		report.Accusation = &Accusation{Kind: KindWaiting}
		s.feed(report)
	case "fails":
		report.Resting = true
		phase := "receive"
		if args[3] == "connect" || args[3] == "accept" {
			phase = args[3]
		}
		report.Accusation = &Accusation{Suspect: strings.Trim(args[1], "-"), Kind: args[2], Phase: phase, Detail: "why",
			Step: s.step, Paused: args[3] == "paused"}
		if g, ok := strings.CutPrefix(strings.Join(args[3:], ""), "@"); ok {
			report.Generation, _ = strconv.ParseInt(g, 10, 64)
		}
		s.feed(report)
	case "probed":
		outcome := map[string]Outcome{"alive": Alive, "refused": Refused, "silent": Silent}[args[1]]
		s.feed(Probed{member, outcome})
	case "unfollowed":
		s.feed(Unfollowed{member})
	case "durable":
		step, err := strconv.ParseInt(member, 10, 64)
		s.feed(Durable{step})
		return err
	case "halt":
		s.feed(Halt{})
	case "unpublished":
		s.next = nil
		s.feed(Unpublished{})
		return nil
	case "wait":
		d, err := time.ParseDuration(member)
		for end := s.now.Add(d); s.now.Before(end); {
			s.now = s.now.Add(500 * time.Millisecond)
			s.feed(Tick{})
		}
		return err
	default:
		return fmt.Errorf("nothing that could happen")
	}
	return nil
}

// settle shows the policy its published world.
func (s *stage) settle() {
	for s.next != nil {
		s.etcd.World, s.next = s.next, nil
		s.feed(s.etcd)
	}
}

func (s *stage) feed(input any) {
	for _, action := range s.policy.Step(s.now, input) {
		switch a := action.(type) {
		case Publish:
			w := a.World
			s.next = &w
			how := "after the step"
			if w.Since == w.Generation {
				how = "at once"
			}
			line := fmt.Sprintf("-> world g=%d %v %s, durable step %d", w.Generation, w.IDs(), how, w.DurableStep)
			if w.Backoff > 0 {
				line += fmt.Sprintf(", backoff %d", w.Backoff)
			}
			if w.Halt {
				line += ", halt"
			}
			if w.Generation > 1 && len(w.Fresh) > 0 {
				line += fmt.Sprintf(", fresh %v", w.Fresh)
			}
			if len(w.Away) > 0 {
				line += fmt.Sprintf(", away %v", job.World{Peers: w.Away}.IDs())
			}
			if len(w.Doubted) > 0 {
				line += fmt.Sprintf(", doubted %v", job.World{Peers: w.Doubted}.IDs())
			}
			s.out = append(s.out, line+": "+w.Reason)
		case Probe:
			s.out = append(s.out, "-> probe "+a.Member+" at "+a.Address)
		case AdoptNumerics:
			s.out = append(s.out, "-> adopt numerics "+a.Value)
			s.etcd.Numerics = a.Value
			s.feed(s.etcd)
		case Fail:
			s.out = append(s.out, "-> the job fails: "+a.Failure)
		case Note:
			s.out = append(s.out, "-> note: "+a.Text)
		}
	}
}

// TestReportsBeforeTheWorldIsReadCount: members may make progress in a world before its publisher reads it back, and
// one of them may die meanwhile.
func TestReportsBeforeTheWorldIsReadCount(t *testing.T) {
	p, now := New("job", "here", 0, Limits{Min: 1, Max: 4, TTL: 5 * time.Second}), time.Unix(0, 0)
	in := Observed{Numerics: "n"}
	for _, id := range []string{"a", "b"} {
		in.Members = append(in.Members, job.Member{ID: id, Address: id + ":1", Numerics: "n", Protocol: job.Protocol})
	}
	p.Step(now, in)
	p.Step(now, Report{Member: "a", Step: -1, Resting: true})
	p.Step(now, Report{Member: "b", Step: -1, Resting: true})
	p.Step(now, Probed{"a", Refused})
	a, b := in.Members[0].Peer(), in.Members[1].Peer()
	in.World = &job.World{Generation: 1, Peers: []job.Peer{a, b}, Fresh: []string{"a", "b"}}
	in.Reports = []Report{{Member: "b", Generation: 1, Step: 3, Committed: true}}
	for _, action := range p.Step(now, in) {
		if a, ok := action.(Publish); ok {
			if w := a.World; !slices.Equal(w.IDs(), []string{"b"}) || len(w.Fresh) > 0 {
				t.Errorf("the next world is %v, fresh %v: b has committed in the last", w.IDs(), w.Fresh)
			}
			return
		}
	}
	t.Error("no world without a")
}

// TestAnotherProtocolIsNoCandidate: a member of another version neither trains nor decides the job's numerics.
func TestAnotherProtocolIsNoCandidate(t *testing.T) {
	p, now := New("job", "here", 0, Limits{Min: 1, Max: 4, TTL: 5 * time.Second}), time.Unix(0, 0)
	other := job.Member{ID: "old", Address: "old:1", Numerics: "x", Protocol: job.Protocol + 1}
	ours := job.Member{ID: "ours", Address: "ours:1", Numerics: "n", Protocol: job.Protocol}
	for _, out := range p.Step(now, Observed{Members: []job.Member{other}}) {
		t.Errorf("alone it makes the policy ask for %#v", out)
	}
	if out := p.Step(now, Observed{Members: []job.Member{other, ours}}); len(out) != 1 ||
		out[0] != (AdoptNumerics{Value: "n"}) {
		t.Errorf("%#v, want the numerics of the other", out)
	}
	other.Numerics = "n"
	p.Step(now, Observed{Members: []job.Member{other, ours}, Numerics: "n"})
	var out []any
	for _, m := range []string{"old", "ours"} {
		out = append(out, p.Step(now, Report{Member: m, Step: -1, Resting: true})...)
	}
	out = append(out, p.Step(now.Add(time.Minute), Tick{})...)
	for _, a := range out {
		if w, ok := a.(Publish); ok && len(w.World.Peers) == 1 && w.World.Peers[0].ID == "ours" {
			return
		}
	}
	t.Errorf("%#v, want a world of the one that speaks this protocol", out)
}

// TestOneReportLeavesNoMemberOut: members that keep the others waiting again and again are left out, then dismissed, if
// half of a world says so. One of three that says it of two that are in its worlds may be the one at fault.
func TestOneReportLeavesNoMemberOut(t *testing.T) {
	for _, c := range []struct{ reporters, world, dismissed []string }{
		{[]string{"c"}, []string{"a", "b", "c"}, nil},
		{[]string{"b", "c"}, []string{"b", "c"}, []string{"a"}},
	} {
		s := &stage{now: time.Unix(0, 0)}
		play := func(line string) {
			t.Helper()
			words := strings.Fields(line)
			if err := s.play(words[0], append(words[1:], "", "", "", "")); err != nil {
				t.Fatal(err)
			}
		}
		play("limits min=1 max=3 expect=3")
		for _, id := range []string{"a", "b", "c"} {
			play("join " + id)
		}
		for range 30 {
			play("settle")
			for _, id := range []string{"a", "b", "c"} {
				if s.policy.rank(id) >= 0 {
					s.feed(Report{Member: id, Generation: s.etcd.World.Generation})
				}
			}
			if s.policy.rank("a") < 0 && len(s.policy.dismissed) == 0 { // without those that it waited for
				play("commits b")
				play("commits c")
				play("rests a")
				play("wait 11m") // all are tried again
				continue
			}
			for _, id := range c.reporters {
				play("fails " + id + " a deadline")
			}
			for _, id := range []string{"a", "b", "c"} {
				play("probed " + id + " alive")
			}
			play("wait 2s")
		}
		play("settle")
		if got := slices.Sorted(maps.Keys(s.policy.dismissed)); !slices.Equal(got, c.dismissed) ||
			!slices.Equal(s.etcd.World.IDs(), c.world) {
			t.Errorf("%v report: the world is %v, dismissed are %v, want %v and %v", c.reporters,
				s.etcd.World.IDs(), got, c.world, c.dismissed)
		}
	}
}
