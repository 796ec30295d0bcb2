package progress

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"testing"
)

// keep runs records through the file at path, as one process does.
func keep(t *testing.T, path string, records ...Record) {
	t.Helper()
	m, err := OpenMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records {
		m.Observe(r)
	}
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
}

func step(n int) Record      { return Record{noon, Step{Step: n, Epoch: 1, Loss: 1 / float64(n)}} }
func evaluated(n int) Record { return Record{noon, Evaluation{Step: n, TestLoss: 0.5}} }

func held(t *testing.T, path string) ([]Record, []int) {
	t.Helper()
	records, damaged, err := ReadMetrics(path)
	if err != nil {
		t.Fatal(err)
	}
	return records, damaged
}

func TestMetricsHoldEachStepOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	keep(t, path, Record{noon, Start{}}, step(1), step(2), step(3), evaluated(2), Record{noon, Step{Step: 4, Loss: math.NaN()}})
	keep(t, path, step(3), step(4), evaluated(2), step(5), step(4), evaluated(4)) // resumed from step 2
	keep(t, path)
	keep(t, path, step(5), step(6), Record{noon, Done{}})
	want := []Record{step(1), step(2), step(3), evaluated(2), step(4), step(5), evaluated(4), step(6)}
	if got, damaged := held(t, path); !reflect.DeepEqual(got, want) || damaged != nil {
		t.Errorf("got %v, damaged %v", got, damaged)
	}
}

func TestMetricsSurviveATornEnd(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	keep(t, path, step(1), step(2), step(3))
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range whole { // a crash at every byte
		if err := os.WriteFile(path, whole[:cut], 0o644); err != nil {
			t.Fatal(err)
		}
		keep(t, path, step(1), step(2), step(3))
		if got, err := os.ReadFile(path); err != nil || string(got) != string(whole) {
			t.Fatalf("cut at %d: %q, %v", cut, got, err)
		}
	}
}

func TestMetricsNameDamagedLines(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	keep(t, path, step(1))
	data, _ := os.ReadFile(path)
	if err := os.WriteFile(path, append(data, "\x00\x00\x00\n\n{\"event\":\n"...), 0o644); err != nil {
		t.Fatal(err)
	}
	keep(t, path, step(1), step(2))
	records, damaged := held(t, path)
	if !reflect.DeepEqual(records, []Record{step(1), step(2)}) || !reflect.DeepEqual(damaged, []int{2, 4}) {
		t.Errorf("got %v, damaged %v", records, damaged)
	}
}

func TestMetricsErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", "metrics.jsonl")
	if _, err := OpenMetrics(path); err == nil {
		t.Error("opened a file in a folder that is not there")
	}
	if _, _, err := ReadMetrics(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenMetrics(os.DevNull); err == nil {
		t.Error("opened a device")
	}
	m, err := OpenMetrics(filepath.Join(t.TempDir(), "metrics.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	m.file.Close() // writing fails from here on
	m.Observe(step(1))
	m.Observe(step(2))
	if m.Close() == nil {
		t.Error("a failed write is not told")
	}
}
