package telemetry

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"evenweave"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
	"evenweave/worker"
)

var (
	_ progress.Observer = (*Coordinator)(nil)
	_ worker.Observer   = (*Worker)(nil)
)

// scrape returns the page, which must follow Prometheus' conventions.
func scrape(t *testing.T, h http.Handler) string {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	text := w.Body.String()
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, namespace) {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	return text
}

func expect(t *testing.T, text string, lines ...string) {
	t.Helper()
	for _, l := range lines {
		if !strings.Contains(text, "\n"+l+"\n") {
			name, _, _ := strings.Cut(l, " ")
			t.Errorf("no line %q; there is:\n%s", l, grep(text, name))
		}
	}
}

func grep(text, what string) string {
	var out []string
	for l := range strings.Lines(text) {
		if strings.HasPrefix(l, what) {
			out = append(out, l)
		}
	}
	return strings.Join(out, "")
}

func members(ids ...string) (out []progress.Member) {
	for rank, id := range ids {
		out = append(out, progress.Member{ID: id, Rank: rank})
	}
	return out
}

func TestCoordinatorShowsAJob(t *testing.T) {
	facts := Facts{Leading: true, Members: 3, Skipped: 2, OtherProtocol: 1, DurableStep: 469,
		DurableAt: time.Unix(1e9, 0)}
	c := NewCoordinator(func() Facts { return facts })
	step := func(n int, seconds float64) progress.Step {
		return progress.Step{Step: n, Epoch: 1, Loss: 0.5, Images: int64(n) * 128, Seconds: seconds,
			ComputeMS: 60, ReduceMS: 5, WaitMS: 10, UpdateMS: 5,
			Metrics: []progress.Metric{{Name: "accuracy", Value: 0.75}, {Name: "bits per byte", Value: 1.5}}}
	}
	for _, e := range []progress.Event{
		progress.Start{Steps: 4690},
		progress.World{Generation: 1, Size: 2, Members: members("a", "b")},
		step(1, 0), step(2, 0.1),
		progress.World{Generation: 2, Size: 3, Members: members("a", "b", "c"), Planned: true},
		step(3, 0.1),
		progress.World{Generation: 3, Size: 2, Members: members("a", "c")},
		step(4, 0.6),
		progress.World{Generation: 4, Size: 2, Members: members("a", "c")},
		progress.MemberChange{ID: "b", What: progress.Lost},
		progress.Checkpoint{Step: 4, Seconds: 0.02, Bytes: 1000},
		progress.Evaluation{Step: 4, Seconds: 2, Figures: []evenweave.Figure{{Name: "accuracy", Value: 0.9},
			{Name: "loss", Value: 0.3}, {Name: "mae", Value: 7}}, Holdout: []evenweave.Figure{{Name: "mae", Value: 8}}},
		progress.Warning{}, progress.Notice{}, progress.Unknown{},
	} {
		c.Observe(progress.Record{Event: e})
	}
	expect(t, scrape(t, c.Handler()),
		"evenweave_steps_total 4", "evenweave_samples_total 384", "evenweave_step 4", "evenweave_target_step 4690",
		"evenweave_loss 0.5",
		"evenweave_accuracy_ratio 0.75", `evenweave_metric{name="accuracy"} 0.75`,
		`evenweave_metric{name="bits per byte"} 1.5`, `evenweave_figure{name="mae",part="test"} 7`,
		`evenweave_figure{name="mae",part="held_out"} 8`, `evenweave_figure{name="loss",part="test"} 0.3`, "evenweave_generation 4", "evenweave_world_size 2", "evenweave_members 3",
		"evenweave_skipped_records 2", "evenweave_other_protocol_members 1", "evenweave_leading 1",
		`evenweave_recoveries_total{cause="member_lost"} 1`, `evenweave_recoveries_total{cause="collective_failed"} 1`,
		`evenweave_worlds_total{kind="planned"} 1`, `evenweave_worlds_total{kind="forced"} 2`,
		"evenweave_recovery_seconds_count 1", "evenweave_recovery_seconds_sum 0.6",
		"evenweave_step_seconds_count 3", "evenweave_productive_seconds_total 0.32",
		`evenweave_member_changes_total{what="lost"} 1`, `evenweave_member_changes_total{what="left"} 0`,
		"evenweave_checkpoint_step 469", "evenweave_checkpoint_timestamp_seconds 1e+09",
		"evenweave_checkpoint_size_bytes 1000",
		"evenweave_checkpoint_seconds_sum 0.02", "evenweave_test_accuracy_ratio 0.9", "evenweave_test_loss 0.3",
		"evenweave_evaluation_seconds_sum 2",
		"evenweave_warnings_total 1", "evenweave_failures_total 0")
}

// A coordinator that takes over sees the present world first: that is no recovery.
func TestFirstWorldSeenIsNoRecovery(t *testing.T) {
	c := NewCoordinator(func() Facts { return Facts{} })
	c.Observe(progress.Record{Event: progress.World{Generation: 7, Size: 2, Members: members("a", "b")}})
	expect(t, scrape(t, c.Handler()), "evenweave_generation 7", `evenweave_worlds_total{kind="forced"} 0`,
		`evenweave_recoveries_total{cause="member_lost"} 0`,
		"evenweave_checkpoint_timestamp_seconds 0")
}

func TestWorkerShowsAMember(t *testing.T) {
	w := NewWorker("w1")
	expect(t, scrape(t, w.Handler()), "evenweave_worker_rank -1", "evenweave_worker_world_size 0",
		`evenweave_worker_info{member="w1"} 1`)
	w.Entered(job.World{Generation: 5, Peers: make([]job.Peer, 3)}, 1)
	w.Committed(&proto.Commit{Step: 12, ComputeNanos: 5e7, ReduceNanos: 2e6, WaitNanos: 1e6, UpdateNanos: 3e6,
		Assignment: []int32{3, 3, 2}}, 1000)
	w.Committed(&proto.Commit{Step: 13, ComputeNanos: 5e7, Assignment: []int32{4, 2, 2}}, 1000)
	w.Broken("deadline")
	w.Healed()
	w.Saw(2, 1)
	expect(t, scrape(t, w.Handler()),
		"evenweave_worker_generation 5", "evenweave_worker_rank 1", "evenweave_worker_world_size 3",
		"evenweave_worker_step 13", "evenweave_worker_steps_total 2",
		"evenweave_worker_micro_batches 2", "evenweave_worker_micro_batches_total 5",
		"evenweave_worker_ring_sent_bytes_total 2000",
		`evenweave_worker_step_phase_seconds_sum{phase="compute"} 0.1`,
		`evenweave_worker_step_phase_seconds_count{phase="wait"} 2`,
		`evenweave_worker_broken_collectives_total{kind="deadline"} 1`,
		`evenweave_worker_broken_collectives_total{kind="broken"} 0`,
		"evenweave_worker_heals_total 1", "evenweave_worker_skipped_records 2",
		"evenweave_worker_other_protocol_members 1")
	w.Rested("spare")
	expect(t, scrape(t, w.Handler()), "evenweave_worker_rank -1", "evenweave_worker_world_size 0",
		"evenweave_worker_micro_batches 0")
}
