package web

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave"
	"evenweave/internal/progress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// cluster drives a page as a coordinator does: steps of members that take turns at being slow.
type cluster struct {
	page       *Page
	now        time.Time
	step       int
	generation uint64
	members    []string
	metrics    []progress.Record // as metrics.jsonl has them
}

func newCluster(members ...string) *cluster {
	c := &cluster{page: New(), now: noon}
	c.start()
	c.world(false, "workers are ready", members...)
	return c
}

func (c *cluster) start() {
	c.event(progress.Start{Job: "evenweave", UUID: "0c9e", Model: "cnn", Recipe: "fast", Seed: 1, Backend: "xla",
		Steps: 1876, Epochs: 4, StepsPerEpoch: 469, Samples: 60000, GlobalBatch: 128, MicroBatch: 16})
}

func (c *cluster) event(e progress.Event) {
	r := progress.Record{Time: c.now, Event: e}
	c.page.Observe(r)
	if _, ok := e.(progress.Step); ok && len(c.metrics) < 5000 {
		c.metrics = append(c.metrics, r)
	}
}

func (c *cluster) world(planned bool, reason string, members ...string) {
	c.generation++
	c.members = members
	w := progress.World{Generation: c.generation, Size: len(members), Reason: reason, Planned: planned}
	for rank, id := range members {
		w.Members = append(w.Members, progress.Member{ID: id, Rank: rank, Address: "127.0.0.1:7000", PID: 100 + rank,
			Host: "loom"})
	}
	c.event(w)
}

func (c *cluster) steps(n int, took time.Duration) {
	for range n {
		c.step++
		c.now = c.now.Add(took)
		x := float64(c.step)
		for rank, id := range c.members {
			compute := took * time.Duration(6+2*min(rank, 1)) / 10
			c.page.ObserveMember(c.now, progress.MemberReport{ID: id, Rank: rank, Host: "loom", PID: 100 + rank,
				Phase: "compute",
				Step:  c.step, Generation: c.generation, Timings: []progress.StepTiming{{Step: c.step, Committed: c.now,
					Compute: compute,
					Wait:    took*8/10 - compute, Reduce: took / 10, Update: took / 20,
					MicroBatches: 8 / len(c.members)}}})
		}
		c.event(progress.Step{Step: c.step, Epoch: (c.step-1)/469 + 1, Loss: 0.2 + 2*math.Exp(-x/200) +
			0.05*math.Sin(x*2.4),
			Metrics:    []progress.Metric{{Name: "accuracy", Value: 1 - 0.4*math.Exp(-x/200)}, {Name: "mae", Value: x}},
			Generation: c.generation, Workers: len(c.members),
			Images:  int64(c.step) * 128,
			Seconds: took.Seconds(), SamplesPerSecond: 128 / took.Seconds(), ComputeMS: 0.8e3 * took.Seconds(),
			ReduceMS: 0.1e3 * took.Seconds()})
	}
}

func figures(accuracy, loss float64) []evenweave.Figure {
	return []evenweave.Figure{{Name: "accuracy", Value: accuracy, Better: 1}, {Name: "loss", Value: loss, Better: -1}}
}

// shown is all that a page holds, as a browser gets it.
func shown(t *testing.T, p *Page) (u update, data []byte) {
	t.Helper()
	data, _, err := p.since(cursor{})
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &u); err != nil {
		t.Fatal(err)
	}
	return u, data
}

func recall(p *Page, dir string, metrics []progress.Record) error {
	add, done, err := p.Recall(dir)
	for _, r := range metrics {
		add(r)
	}
	done()
	return err
}

// killed is a run in which a worker is killed and another one joins.
func killed() *cluster {
	c := newCluster("w1-6de4", "w2-8d4f")
	c.steps(120, 80*time.Millisecond)
	c.page.ObserveMember(c.now, progress.MemberReport{ID: "w1-6de4", Rank: 0, Step: c.step, Generation: 1,
		Wait: &progress.Wait{For: "w2-8d4f", Kind: "broken", Phase: "reduce", Step: c.step,
			Waited: 40 * time.Millisecond}})
	c.now = c.now.Add(900 * time.Millisecond)
	c.world(false, "w2-8d4f was evicted: its connection is refused", "w1-6de4")
	c.event(progress.MemberChange{ID: "w2-8d4f", What: progress.Lost, Detail: "pid 101 on loom"})
	c.steps(50, 150*time.Millisecond)
	c.event(progress.MemberChange{ID: "w3-0a1b", What: progress.Ready, Detail: "pid 102 on loom"})
	c.steps(5, 150*time.Millisecond)
	c.world(true, "w3-0a1b joins", "w1-6de4", "w3-0a1b")
	c.steps(300, 80*time.Millisecond)
	c.event(progress.Evaluation{Step: 469, Epoch: 1, Seconds: 1.2, Figures: figures(0.852, 0.41)})
	c.event(progress.Checkpoint{Step: 469, Epoch: 1, Path: "run/checkpoints/469.ckpt", Seconds: 0.02, Bytes: 1332068})
	return c
}

func TestAKillIsShown(t *testing.T) {
	u, _ := shown(t, killed().page)
	w := u.Worlds.Items
	if len(w) != 3 || fmt.Sprint(w[1].Lost, w[1].Left, w[2].Joined,
		w[0].Joined) != "[w2-8d4f] [] [w3-0a1b] [w1-6de4 w2-8d4f]" {
		t.Errorf("worlds %+v", w)
	}
	if w[1].Step != 120 || w[2].Step != 175 {
		t.Errorf("worlds begin after steps %d and %d, want 120 and 175", w[1].Step, w[2].Step)
	}
	if r := u.Recoveries.Items; len(r) != 1 || r[0].Step != 121 || math.Abs(r[0].Seconds-1.05) > 1e-6 {
		t.Errorf("recoveries %+v, want one of 1.05 s before step 121", r)
	}
	if w := u.Waits.Items; len(w) != 1 || w[0].Member != "w1-6de4" || w[0].For != "w2-8d4f" {
		t.Errorf("waits %+v", w)
	}
	states := map[string]string{}
	for _, m := range u.Members {
		states[m.ID] = fmt.Sprint(m.State, m.Rank, m.Share)
	}
	if fmt.Sprint(states) != "map[w1-6de4:training0 4 w2-8d4f:lost-1 4 w3-0a1b:training1 4]" {
		t.Errorf("members %v", states)
	}
	if u.Job.Step != 475 || u.Job.State != "training" || u.Job.Generation != 3 {
		t.Errorf("job %+v", u.Job)
	}
}

// A job of a week takes no more memory, and sends no more, than its bounds say.
func TestAWeekIsBounded(t *testing.T) {
	steps := 7 * 24 * 3600
	if testing.Short() {
		steps /= 20
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	c := newCluster("a", "b", "c")
	for day := range steps / 1000 {
		c.steps(1000, time.Second)
		c.world(day%2 == 0, "a member comes or goes", "a", "b", fmt.Sprint("c", day))
		c.event(progress.MemberChange{ID: fmt.Sprint("c", day-1), What: progress.Lost})
		c.event(progress.Evaluation{Step: c.step, Figures: figures(0.5, 1)})
		c.page.ObserveDetails(c.now, details(c.step))
		c.event(progress.Checkpoint{Step: c.step})
		c.event(progress.Warning{Message: strings.Repeat("x", 5000)})
	}
	u, data := shown(t, c.page)
	runtime.GC()
	runtime.ReadMemStats(&after)
	grown := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d steps of 3 members: %d bytes of heap, a snapshot of %d bytes", c.step, grown, len(data))
	if grown > 16<<20 || len(data) > 3<<20 {
		t.Errorf("%d bytes of heap, a snapshot of %d bytes: at most 16 and 3 MiB", grown, len(data))
	}
	if n := len(u.Cells.Cells); n > maxCells || u.Cells.Cells[n-1].column >= maxColumns || len(u.Members) > maxMembers {
		t.Errorf("%d cells up to column %d, %d members", n, u.Cells.Cells[n-1].column, len(u.Members))
	}
	runtime.KeepAlive(c)
}

func TestCurveKeepsWhatMatters(t *testing.T) {
	c := newCurve()
	least, most, sum := math.Inf(1), math.Inf(-1), 0.0
	const steps = 12345
	loss := func(v float64) []progress.Metric { return []progress.Metric{{Name: "loss", Value: v}} }
	for s := 1; s <= steps; s++ {
		v := math.Sin(float64(s)*0.37) + float64(s%997)/100
		least, most, sum = min(least, v), max(most, v), sum+v
		if !c.add(point{step: s, samples: 1}, loss(v)) || c.add(point{step: s}, loss(0)) {
			t.Fatalf("step %d must be taken once", s)
		}
		if len(c.buckets) > maxBuckets {
			t.Fatalf("%d buckets", len(c.buckets))
		}
	}
	var all extent
	n, next := 0, 1
	for i, b := range c.buckets {
		if b.first != next || b.last-b.first+1 != b.n {
			t.Fatalf("bucket %d holds steps %d to %d, %d of them, after %d", i, b.first, b.last, b.n, next-1)
		}
		if next = b.last + 1; i == 0 {
			all = b.values[0]
		} else {
			v := b.values[0]
			all = extent{0, min(all.least, v.least), max(all.most, v.most), all.sum + v.sum, v.last}
		}
		n += b.n
	}
	last := c.tail.newest()[maxTail-1]
	if n != steps || all.least != least || all.most != most || math.Abs(all.sum-sum) > 1e-6 || last.step != steps ||
		all.last != last.values[0] {
		t.Errorf("%d steps from %v to %v, sum %v; want %d, %v, %v, %v", n, all.least, all.most, all.sum, steps, least,
			most, sum)
	}
}

// A metric that appears later, or is missing from a step, spoils no other one's values.
func TestCurveTakesInNewMetrics(t *testing.T) {
	c := newCurve()
	const steps = 5000
	for s := 1; s <= steps; s++ {
		numbers := []progress.Metric{{Name: "loss", Value: float64(s)}}
		if s > 1000 && s%3 == 0 {
			numbers = append([]progress.Metric{{Name: "mae", Value: -1}}, numbers...)
		}
		c.add(point{step: s}, numbers)
	}
	sums, counts := map[string]float64{}, map[string]int{}
	for _, b := range c.buckets {
		for i, v := range b.values {
			sums[c.metrics[i]], counts[c.metrics[i]] = sums[c.metrics[i]]+v.sum, counts[c.metrics[i]]+v.n
		}
	}
	if fmt.Sprint(c.metrics, counts, sums) != "[loss mae] map[loss:5000 mae:1333] map[loss:1.25025e+07 mae:-1333]" {
		t.Errorf("%v: %v, sums %v", c.metrics, counts, sums)
	}
	for i := range 2 * maxMetrics {
		c.add(point{step: steps + 1 + i}, []progress.Metric{{Name: fmt.Sprint(i), Value: 1}})
	}
	if p, _ := c.since(curveSeen{}); len(c.metrics) != maxMetrics || len(p.Metrics) != maxMetrics {
		t.Errorf("%d metrics, at most %d", len(c.metrics), maxMetrics)
	}
}

// A browser that takes what changed, whenever it asks, ends with what a browser gets that comes at the end.
func TestChangesAddUpToAll(t *testing.T) {
	c := newCluster("a", "b")
	var seen cursor
	client := newClient()
	for i := range 60 {
		c.steps(i*i%150, 70*time.Millisecond)
		if i%7 == 0 {
			c.world(i%2 == 0, "a change", "a", fmt.Sprint("b", i))
			c.event(progress.Notice{Message: fmt.Sprint("round ", i)})
		}
		if i%3 == 0 {
			data, next, err := c.page.since(seen)
			if err != nil {
				t.Fatal(err)
			}
			seen = next
			client.take(t, data)
		}
	}
	data, next, err := c.page.since(seen)
	if err != nil {
		t.Fatal(err)
	}
	client.take(t, data)
	if again, _, _ := c.page.since(next); again != nil {
		t.Errorf("nothing happened, and this is new: %s", again)
	}
	whole := newClient()
	_, all := shown(t, c.page)
	whole.take(t, all)
	for name, want := range whole.lists {
		if got := client.lists[name]; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: %d items add up, %d are there\n%.300v\n%.300v", name, len(got), len(want), got, want)
		}
	}
	if len(whole.lists["curve"]) < 500 || len(whole.lists["laps"]) == 0 || len(whole.lists["cells"]) == 0 {
		t.Errorf("the test has lost its subject: %d buckets", len(whole.lists["curve"]))
	}
}

// client does what data.js does.
type client struct{ lists map[string][]any }

func newClient() *client { return &client{map[string][]any{}} }

func (c *client) take(t *testing.T, data []byte) {
	t.Helper()
	var u map[string]any
	if err := json.Unmarshal(data, &u); err != nil {
		t.Fatal(err)
	}
	if u["reset"] == true {
		clear(c.lists)
	}
	push := func(name string, p any) {
		if p, ok := p.(map[string]any); ok {
			all := append(c.lists[name], p["items"].([]any)...)
			c.lists[name] = all[max(0, len(all)-int(p["keep"].(float64))):]
		}
	}
	for _, name := range []string{"worlds", "recoveries", "notes", "checkpoints", "waits", "laps"} {
		push(name, u[name])
	}
	if p, ok := u["curve"].(map[string]any); ok {
		kept := c.lists["curve"]
		kept = kept[:min(len(kept), int(p["from"].(float64)))]
		c.lists["curve"] = append(kept, p["buckets"].([]any)...)
		push("tail", p["tail"])
	}
	if p, ok := u["cells"].(map[string]any); ok {
		var kept []any
		for _, cell := range c.lists["cells"] {
			if cell.([]any)[0].(float64) < p["from"].(float64) {
				kept = append(kept, cell)
			}
		}
		c.lists["cells"] = append(kept, p["cells"].([]any)...)
	}
}

// What a run directory holds gives the page that was shown, and the next coordinator goes on with it.
func TestARestartGoesOn(t *testing.T) {
	dir := t.TempDir()
	c := killed()
	stop := c.page.Keep(dir, nil)
	stop()
	before, _ := shown(t, c.page)
	next := &cluster{page: New(), now: c.now.Add(3 * time.Second), step: c.step, generation: c.generation,
		members: c.members}
	if err := recall(next.page, dir, c.metrics); err != nil {
		t.Fatal(err)
	}
	u, _ := shown(t, next.page)
	for name, pair := range map[string][2]any{"worlds": {before.Worlds, u.Worlds}, "notes": {before.Notes, u.Notes},
		"laps":  {before.Laps, u.Laps},
		"cells": {before.Cells, u.Cells}, "members": {before.Members, u.Members}, "totals": {before.Totals, u.Totals},
		"job":        {before.Job, u.Job},
		"recoveries": {before.Recoveries, u.Recoveries}} {
		if got, want := text(t, pair[1]), text(t, pair[0]); got != want {
			t.Errorf("%s: got %.400s\nwant %.400s", name, got, want)
		}
	}
	next.start()
	next.event(progress.World{Generation: 3, Size: 2, Reason: "seen again"})
	next.steps(10, 80*time.Millisecond)
	u, _ = shown(t, next.page)
	if n := len(next.page.history.curve.buckets); n != next.step || u.Job.Step != next.step ||
		u.Job.State != "training" {
		t.Errorf("%d buckets, %+v", n, u.Job)
	}
	if len(u.Worlds.Items) != 3 || len(u.Recoveries.Items) != 1 || len(u.Laps.Items) != len(before.Laps.Items)+20 {
		t.Errorf("%d worlds, %d recoveries, %d laps", len(u.Worlds.Items), len(u.Recoveries.Items), len(u.Laps.Items))
	}
}

// Evaluations that were made late are shown in their place after a restart.
func TestLateEvaluationsTakeTheirPlace(t *testing.T) {
	late := func(step int) progress.Record {
		return progress.Record{Time: noon, Event: progress.Evaluation{Step: step, Figures: figures(0.5, float64(step))}}
	}
	var metrics []progress.Record
	for step := 1; step <= 5*maxTail; step += 3 {
		metrics = append(metrics, late(step+1), late(step+2), late(step))
	}
	p := New()
	if err := recall(p, t.TempDir(), metrics); err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, b := range p.history.evaluations.buckets {
		n += b.n
	}
	if n != len(metrics) || p.history.evaluations.step() != metrics[len(metrics)-2].Event.(progress.Evaluation).Step {
		t.Errorf("%d of %d evaluations are shown, up to step %d", n, len(metrics), p.history.evaluations.step())
	}
}

func text(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// A file that is no history is named, and costs the timeline only.
func TestADamagedHistoryIsNamed(t *testing.T) {
	for name, content := range map[string]string{
		"no JSON": "{", "another version": `{"version":9}`,
		"columns": `{"version":1,"cells":{"width_ms":0,"cells":[[1,1,1,1,1,1,1,1]]}}`,
		"a row":   `{"version":1,"laps":{"items":[[1,-1,1,1,1,1,1,1]]}}`,
		"numbers": `{"version":1,"laps":{"items":["x"]}}`,
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, FileName), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p := New()
		err := recall(p, dir, []progress.Record{{Time: noon, Event: progress.Step{Step: 1}}})
		if err == nil {
			t.Errorf("%s: no error", name)
		}
		if u, _ := shown(t, p); u.Job.Step != 1 {
			t.Errorf("%s: the curve is lost", name)
		}
	}
}

func BenchmarkObserver(b *testing.B) {
	c := newCluster("a", "b", "c", "d")
	b.ReportAllocs()
	for b.Loop() {
		c.steps(1, 80*time.Millisecond)
	}
}

func BenchmarkSnapshot(b *testing.B) {
	c := newCluster("a", "b", "c", "d")
	c.steps(5000, 80*time.Millisecond)
	for b.Loop() {
		if _, _, err := c.page.since(cursor{}); err != nil {
			b.Fatal(err)
		}
	}
}
