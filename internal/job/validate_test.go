package job_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"evenweave/internal/job"
)

var (
	spec = job.Spec{Task: "tiny", Options: job.Options{"rate": json.RawMessage("0.5")}, Data: "d", Samples: 60000,
		GlobalBatch: 128, MicroBatch: 16, Epochs: 10}
	whole  = job.Job{UUID: "u", Spec: spec, Backend: "xla", CheckpointEvery: 5}
	member = job.Member{ID: "worker-1", Job: "u", Address: "127.0.0.1:7071", Host: "h", PID: 1, Protocol: job.Protocol}
	world  = job.World{Job: "u", Generation: 3, Since: 2, DurableStep: 10, Coordinator: "[fd77::1]:7070", Backoff: 6,
		Reason: "first world",
		Peers:  []job.Peer{{ID: "a", Address: "host-a.example:1"}, {ID: "b", Address: "10.0.0.2:65535"}}}
	leader = job.Leader{ID: "coordinator-1", Address: "127.0.0.1:7070"}
	done   = job.Done{Job: "u", Generation: 3, Step: 10, Complete: true}
)

func changed[T any](record T, change func(*T)) T {
	change(&record)
	return record
}

// TestValidateNamesTheField: a record of which one field cannot be is refused by that field's name; a good one is not.
func TestValidateNamesTheField(t *testing.T) {
	long := strings.Repeat("x", 5000)
	for _, good := range []interface{ Validate() error }{spec, whole, member, world, leader, done,
		job.World{Job: "u", Generation: 1}} {
		if err := good.Validate(); err != nil {
			t.Errorf("%+v: %v", good, err)
		}
	}
	for _, c := range []struct {
		names string
		bad   interface{ Validate() error }
	}{
		{"--epochs", changed(spec, func(s *job.Spec) { s.Epochs = 4_000_000_000_000_000_000 })},
		{"--epochs", changed(spec, func(s *job.Spec) { s.Epochs, s.Steps = -1, 5 })},
		{"--steps", changed(spec, func(s *job.Spec) { s.Steps = 1<<53 + 1 })},
		{"--steps", changed(spec, func(s *job.Spec) { s.Steps = -1 })},
		{"--global-batch", changed(spec, func(s *job.Spec) { s.GlobalBatch = 0 })},
		{"--global-batch", changed(spec, func(s *job.Spec) { s.GlobalBatch, s.MicroBatch = 1<<40, 1<<40 })},
		{"--micro-batch", changed(spec, func(s *job.Spec) { s.MicroBatch = 1 << 40 })},
		{"--micro-batch", changed(spec, func(s *job.Spec) { s.MicroBatch = 24 })},
		{"micro-batches", changed(spec, func(s *job.Spec) { s.GlobalBatch, s.MicroBatch = 1<<20, 1 })},
		{"samples", changed(spec, func(s *job.Spec) { s.Samples = 1 << 40 })},
		{"no sample", changed(spec, func(s *job.Spec) { s.Samples = 0 })},
		{"task", changed(spec, func(s *job.Spec) { s.Task = "" })},
		{"data", changed(spec, func(s *job.Spec) { s.Data = long })},
		{"options", changed(spec, func(s *job.Spec) {
			s.Options = job.Options{"x": json.RawMessage(`"` + strings.Repeat("x", 40<<10) + `"`)}
		})},
		{`option "a"`, changed(spec, func(s *job.Spec) { s.Options = job.Options{"a": json.RawMessage("[1]")} })},
		{`option "b"`, changed(spec, func(s *job.Spec) { s.Options = job.Options{"b": json.RawMessage("nul")} })},
		{`option ""`, changed(spec, func(s *job.Spec) { s.Options = job.Options{"": json.RawMessage("1")} })},
		{"history", changed(spec, func(s *job.Spec) { s.History = make([]job.Extension, 101) })},
		{"history, entry 0: step", changed(spec, func(s *job.Spec) { s.History = []job.Extension{{Step: -1}} })},
		{"UUID", changed(whole, func(j *job.Job) { j.UUID = "" })},
		{"--global-batch", changed(whole, func(j *job.Job) { j.Spec.GlobalBatch = 0 })},
		{"checkpoint_every", changed(whole, func(j *job.Job) { j.CheckpointEvery = -1 })},
		{"backend", changed(whole, func(j *job.Job) { j.Backend = long })},
		{"id", changed(member, func(m *job.Member) { m.ID = "../world" })},
		{"address", changed(member, func(m *job.Member) { m.Address = "unix:/var/run/docker.sock" })},
		{"address", changed(member, func(m *job.Member) { m.Address = "host:0" })},
		{"UUID", changed(member, func(m *job.Member) { m.Job = "" })},
		{"numerics", changed(member, func(m *job.Member) { m.Numerics = long })},
		{"pid", changed(member, func(m *job.Member) { m.PID = -1 })},
		{"generation", changed(world, func(w *job.World) { w.Generation = 0 })},
		{"generation", changed(world, func(w *job.World) { w.Generation = math.MaxInt64 })},
		{"since", changed(world, func(w *job.World) { w.Since = 4 })},
		{"floor", changed(world, func(w *job.World) { w.DurableStep = 1 << 62 })},
		{"patience", changed(world, func(w *job.World) { w.Backoff = -1 })},
		{"patience", changed(world, func(w *job.World) { w.Backoff = 7 })},
		{"reason", changed(world, func(w *job.World) { w.Reason = long })},
		{"coordinator", changed(world, func(w *job.World) { w.Coordinator = "nowhere" })},
		{"twice", changed(world, func(w *job.World) { w.Peers = slices.Repeat(w.Peers, 2) })},
		{"peer 1", changed(world, func(w *job.World) { w.Peers = []job.Peer{w.Peers[0], {ID: "b", Address: "b"}} })},
		{"peers", changed(world, func(w *job.World) { w.Peers = make([]job.Peer, 1<<16+1) })},
		{"UUID", changed(world, func(w *job.World) { w.Job = "" })},
		{"id", changed(leader, func(l *job.Leader) { l.ID = "\x1b[2J" })},
		{"address", changed(leader, func(l *job.Leader) { l.Address = "" })},
		{"step", changed(done, func(d *job.Done) { d.Step = -1 })},
		{"failure", changed(done, func(d *job.Done) { d.Failure = long })},
	} {
		if err := c.bad.Validate(); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%+.200v: %v, want an error that names %q", c.bad, err, c.names)
		}
	}
}

func TestNamesAndAddresses(t *testing.T) {
	for id, ok := range map[string]bool{"a": true, "0": true, "worker-1-ab12": true, "": false, "-a": false,
		"a-": false, "A": false, "a/b": false, "a b": false, "a.b": false,
		"ä": false, strings.Repeat("a", 63): true, strings.Repeat("a", 64): false} {
		if err := job.CheckID(id); (err == nil) != ok {
			t.Errorf("id %q: %v", id, err)
		}
	}
	if job.CheckName(strings.Repeat("a", 40)) != nil || job.CheckName(strings.Repeat("a", 41)) == nil ||
		job.CheckName("a/members") == nil {
		t.Error("a job's name has at most 40 characters of those that an id may have")
	}
	for host, id := range map[string]string{"pod-7f": "pod-7f", "DESK_top.lan": "desk-top-lan", "": "host",
		"---": "host", "häuser": "h-user",
		strings.Repeat("a", 57) + "-b": strings.Repeat("a", 57)} {
		if got := job.IDOf(host, 58); got != id || job.CheckID(got) != nil {
			t.Errorf("the id of host %q is %q, want %q", host, got, id)
		}
	}
	for address, ok := range map[string]bool{"h:1": true, "10.0.0.1:65535": true, "[::1]:80": true,
		"[fe80::1%eth0]:80": true, "my_host.example:7": true,
		"": false, "h": false, ":80": false, "h:": false, "h:0": false, "h:65536": false, "h:x": false, "h:-1": false,
		"unix:/a:1": false, "unix:w1-a.sock": true, "unix:/w.sock": false, "unix:../w.sock": false,
		"unix:.sock": false, "unix:a/b.sock": false, "unix:" + strings.Repeat("a", 64) + ".sock": false, "unix:1": true,
		"dns:///h:1": false,
		"::1:80":     false, "[::1:80": false, "[]:80": false, "h h:1": false, "h\n:1": false,
		strings.Repeat("h", 300) + ":1": false} {
		if err := job.CheckAddress(address); (err == nil) != ok {
			t.Errorf("address %q: %v", address, err)
		}
	}
}

// TestCleanPrintsNothingHidden: what Clean returns has no character that a terminal obeys instead of showing it, and is
// bounded.
func TestCleanPrintsNothingHidden(t *testing.T) {
	for text, want := range map[string]string{
		"":                            "",
		"as it is: 1.5 %, Käse 衣服":    "as it is: 1.5 %, Käse 衣服",
		"\x1b[2J\x1b]0;title\x07rest": "[2J]0;titlerest",
		"\u009b2Jrest":                "2Jrest",
		"a\u202eb\u2066c\u200bd":      "abcd",
		"two\r\n lines\u2028three\t4": "two lines three 4",
		" \n ends \n":                 "ends",
		"bad \xff\xfe bytes":          "bad bytes",
		strings.Repeat("ü", 256):      strings.Repeat("ü", 256),
		strings.Repeat("ü", 257):      strings.Repeat("ü", 255) + "…",
	} {
		if got := job.Clean(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzClean(f *testing.F) {
	f.Add("\x1b[2J\u202e \u009b\n" + strings.Repeat("x", 300))
	f.Add("a\U000e0041\ufffd\xff\u00a0 b" + strings.Repeat("\n", 100) + strings.Repeat("y", 3000))
	f.Fuzz(func(t *testing.T, text string) {
		got := job.Clean(text)
		if utf8.RuneCountInString(got) > 256 || !utf8.ValidString(got) ||
			strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q became %q", text, got)
		}
		if again := job.Clean(got); again != got {
			t.Errorf("%q became %q, and that %q", text, got, again)
		}
		lines := job.Lines(text)
		for _, line := range lines {
			if utf8.RuneCountInString(line) > 2048 ||
				strings.ContainsFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }) || len(lines) > 64 {
				t.Errorf("%q became %d lines, %q", text, len(lines), line)
			}
		}
		plain, err := json.Marshal(text)
		if err != nil {
			t.Fatal(err)
		}
		var before, after string
		escaped := job.Escape(plain)
		if json.Unmarshal(plain, &before) != nil || json.Unmarshal(escaped, &after) != nil || before != after {
			t.Errorf("%q is read as %q, escaped as %q", text, before, after)
		}
		if strings.ContainsFunc(string(escaped), func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q was escaped to %q", text, escaped)
		}
	})
}

// fuzz decodes what may stand in etcd; use does with a valid record what the product does.
func fuzz[T interface{ Validate() error }](f *testing.F, good T, use func(*testing.T, T)) {
	b, err := json.Marshal(good)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{string(b), "null", "{", "{}", `{"generation":9223372036854775807,"patience":-1}`,
		`{"spec":{"global_batch":0}}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var r T
		if json.Unmarshal(b, &r) == nil && r.Validate() == nil {
			use(t, r)
		}
	})
}

func useSpec(t *testing.T, s job.Spec) {
	total, each := s.TotalSteps(), s.Plan().StepsPerEpoch()
	if total < 1 || total > job.MaxStep || each < 1 || s.Plan().MicroBatches() < 1 ||
		s.Plan().MicroBatches() > job.MaxPeers {
		t.Errorf("%+v: %d steps, %d an epoch", s, total, each)
	}
	_ = s.EpochEnds(total)
	_, _ = s.Plan().Position(total)
	if d := s.Diff(s); len(d) != 0 {
		t.Errorf("differs from itself in %v", d)
	}
}

func FuzzSpec(f *testing.F) { fuzz(f, spec, useSpec) }

func FuzzJob(f *testing.F) {
	fuzz(f, whole, func(t *testing.T, j job.Job) {
		useSpec(t, j.Spec)
		if last := j.Spec.TotalSteps(); !j.Due(last) || j.Due(0) || j.Due(-1) {
			t.Errorf("%+v: the last step is due, none is before the first", j)
		}
	})
}

func FuzzWorld(f *testing.F) {
	fuzz(f, world, func(t *testing.T, w job.World) {
		for rank, id := range w.IDs() {
			left, right := w.Peers[(rank+w.Size()-1)%w.Size()], w.Peers[(rank+1)%w.Size()]
			if w.Rank(id) != rank || left.ID == "" || right.ID == "" {
				t.Errorf("rank %d of %+v", rank, w)
			}
		}
		if w.Rank("") != -1 || w.Generation+1 < w.Generation || int64(1)<<w.Backoff > 64 ||
			w.DurableStep+w.Generation < 0 {
			t.Errorf("%+v", w)
		}
	})
}

func FuzzMember(f *testing.F) {
	fuzz(f, member, func(t *testing.T, m job.Member) {
		if strings.ContainsAny(m.ID, "/ ") || m.Speaks() == nil && m.Protocol != job.Protocol ||
			job.CheckAddress(m.Address) != nil {
			t.Errorf("%+v", m)
		}
	})
}

func FuzzLeader(f *testing.F) {
	fuzz(f, leader, func(t *testing.T, l job.Leader) {
		if strings.ContainsAny(l.ID, "/ ") || job.CheckAddress(l.Address) != nil {
			t.Errorf("%+v", l)
		}
	})
}

func FuzzDone(f *testing.F) {
	fuzz(f, done, func(t *testing.T, d job.Done) {
		if d.Step < 0 || d.Step > job.MaxStep || len(d.Failure) > 4096 {
			t.Errorf("%+v", d)
		}
	})
}

// largest is a world of so many peers, each with the longest of all that a record may say of it.
func largest(peers int) job.World {
	w := job.World{Job: strings.Repeat("u", 128), Generation: job.MaxStep, Since: job.MaxStep, DurableStep: job.MaxStep,
		Reason: strings.Repeat("r", 4096), Keys: map[string][]string{}}
	for i := range peers {
		id := fmt.Sprintf("%063d", i)
		w.Peers = append(w.Peers, job.Peer{ID: id, Address: strings.Repeat("a", 255) + ":65535"})
		w.Fresh = append(w.Fresh, id)
		w.Keys[id] = []string{strings.Repeat("k", 64), strings.Repeat("l", 64)}
	}
	return w
}

// TestTheLargestWorldFits into its record, and what else would make it larger is left out.
func TestTheLargestWorldFits(t *testing.T) {
	w := largest(job.MaxWorld)
	const most = job.MaxWorldBytes - 64<<10 // beside the seal
	if n := w.Fit(most); n != 0 {
		t.Fatalf("%d members are left out", n)
	}
	others := largest(3000)
	w.Dismissed = map[string]string{}
	for _, p := range others.Peers[1000:2000] {
		w.Dismissed[p.ID] = "it\nfailed" // an escape makes it longer
	}
	kept := maps.Clone(w.Dismissed)
	for _, away := range []int{0, 400, 800, 3000} {
		fitted := w
		fitted.Dismissed, fitted.Away, fitted.Doubted = kept, others.Peers[:away], others.Peers[:away/2]
		left := fitted.Fit(most)
		b, err := json.Marshal(fitted)
		if err == nil {
			err = fitted.Validate()
		}
		if err != nil || len(b) > most || left != away+away/2+len(kept)-
			len(fitted.Away)-len(fitted.Doubted)-len(fitted.Dismissed) {
			t.Errorf("%d away: %d bytes, %d left out, %d away and %d dismissed in it: %v", away, len(b), left,
				len(fitted.Away), len(fitted.Dismissed), err)
		}
		if left > 0 && len(b) < most-1000 || left > 0 && len(fitted.Away) > 0 && len(fitted.Dismissed) > 0 {
			t.Errorf("%d away: %d of %d bytes are used: %d left out, %d dismissed in it", away, len(b), most, left,
				len(fitted.Dismissed))
		}
	}
	if len(kept) != 1000 {
		t.Error("the caller's map has changed")
	}
	if err := (job.Member{ID: "a", Job: "u", Address: "h:1", Keys: []string{"\x00"}}).Validate(); err == nil {
		t.Error("a key that JSON writes as six bytes is taken")
	}
}
