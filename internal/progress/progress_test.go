package progress

import (
	"bytes"
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"evenweave"
)

var update = flag.Bool("update", false, "write the transcripts in testdata again")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var noon = time.Date(2026, 11, 23, 12, 0, 0, 123456789, time.UTC)

// story is a job of 4 epochs of 40 steps at ten steps a second: a worker is lost in epoch 2, and the process is stopped
// in epoch 3.
func story() []Record {
	var records []Record
	now := noon
	add := func(after time.Duration, e Event) {
		now = now.Add(after)
		records = append(records, Record{now, e})
	}
	steps := func(from, to, workers int, generation uint64, each time.Duration) {
		for s := from; s <= to; s++ {
			add(each, Step{Step: s, Epoch: (s-1)/40 + 1, Loss: lossAt(s),
				Metrics:    []Metric{{"accuracy", 1 - lossAt(s)/2.5}, {"mae", lossAt(s) / 1e4}},
				Generation: generation, Workers: workers, Images: int64(s) * 128, Seconds: each.Seconds(),
				SamplesPerSecond: 128 / each.Seconds(), ComputeMS: 80, ReduceMS: 12, WaitMS: 4, UpdateMS: 3})
		}
	}
	two := []Member{{"w-1", 0, "127.0.0.1:4001", 101, "loom"}, {"w-2", 1, "127.0.0.1:4002", 102, "loom"}}
	add(0, Start{Job: "evenweave", UUID: "0c9e", Model: "cnn", Recipe: "tutorial", Seed: 1, Backend: "xla",
		Workers: 2, Steps: 160, Epochs: 4, StepsPerEpoch: 40, Samples: 5120, GlobalBatch: 128, MicroBatch: 16,
		Layers: []evenweave.Layer{layer("conv1", "26x26x32", 320), layer("pool", "12x12x64", 0),
			layer("dense", "10", 92170)}})
	add(0, Page{URL: "http://127.0.0.1:8080/page/c2VjcmV0/"})
	add(time.Second, MemberChange{ID: "w-1", What: Ready})
	add(time.Second, MemberChange{ID: "w-2", What: Refused, Detail: "its numerics 4f2a are not the job's 91bc"})
	add(time.Second, World{Generation: 1, Size: 2, Members: two, Reason: "the job starts"})
	steps(1, 40, 2, 1, 100*time.Millisecond)
	add(0, Checkpoint{Step: 40, Epoch: 1, Path: "run/checkpoints/40-1", Seconds: 0.021, Bytes: 1332068})
	steps(41, 50, 2, 1, 100*time.Millisecond)
	add(0, Evaluation{Step: 40, Epoch: 1, Seconds: 2.34,
		Figures: []evenweave.Figure{figure("accuracy", 0.8123, 1), figure("loss", 0.5234, -1),
			figure("perplexity", 31234.567, -1)},
		Holdout: []evenweave.Figure{figure("accuracy", 0.8, 1), figure("loss", 0.6, -1)}})
	add(5*time.Second, Failure{Message: "the all-reduce broke", Member: "w-2", Generation: 1, Step: 51})
	add(0, MemberChange{ID: "w-2", What: Lost, Detail: "the probe got no answer in 5s"})
	add(time.Second, World{Generation: 2, Size: 1, Members: two[:1], Reason: "w-2 was lost"})
	steps(51, 100, 1, 2, 200*time.Millisecond)
	add(0, Warning{"checkpoint 80-1 is damaged and was skipped:\nits checksum differs"})
	add(0, Notice{"interrupted: one more Ctrl-C stops at once"})
	add(time.Second, Done{Step: 100, Epoch: 3, Workers: 1, Generation: 2, WeightsSHA256: "ab12", Fingerprint: "cd34",
		SamplesPerSecond: 700.4, WallSeconds: 3671, Backend: "xla", Checkpoint: "run/checkpoints/100-1"})
	add(time.Minute, Start{Job: "evenweave", UUID: "0c9e", Backend: "xla", Workers: 3, Steps: 160, Epochs: 4,
		StepsPerEpoch: 40, Samples: 5120, GlobalBatch: 128, MicroBatch: 16, ResumedFrom: 100})
	steps(101, 160, 3, 3, 30*time.Millisecond)
	add(0, Unknown{"novelty", []byte(`{"event":"novelty","time":"2026-11-23T12:02:00Z","x":1}`)})
	add(0, Done{Step: 160, Epoch: 4, Workers: 3, Generation: 3,
		Figures:       []evenweave.Figure{figure("accuracy", 0.9201, 1), figure("loss", 0.2314, -1)},
		WeightsSHA256: "ef56", Fingerprint: "0178", SamplesPerSecond: 4200, WallSeconds: 61.5, Backend: "xla",
		Complete: true, Checkpoint: "run/checkpoints/160-1"})
	return records
}

func lossAt(step int) float64 {
	return 0.2 + 2*math.Exp(-float64(step)/30) + 0.05*math.Sin(float64(step)*2.4)
}

// golden compares got with a transcript that people can read.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs; read the output, and if it is right run the test with -update\ngot:\n%s", path, got)
	}
}

// A task without backends has no empty place for one.
func TestNoBackendIsNotNamed(t *testing.T) {
	var out strings.Builder
	p := NewPlain(&out, time.UTC)
	p.Observe(Record{Event: Start{Job: "x", Steps: 1}})
	p.Observe(Record{Event: Done{Step: 1, Complete: true}})
	if strings.Contains(out.String(), "backend") {
		t.Errorf("it says:\n%s", out.String())
	}
}

func figure(name string, value float64, better evenweave.Direction) evenweave.Figure {
	return evenweave.Figure{Name: name, Value: value, Better: better}
}

func layer(name, output string, parameters int) evenweave.Layer {
	return evenweave.Layer{Name: name, Output: output, Parameters: parameters}
}
