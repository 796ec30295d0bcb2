package progress

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"evenweave"
)

// keep runs records through the file at path, as one process does.
func keep(t *testing.T, path string, records ...Record) {
	t.Helper()
	m, err := OpenMetrics(t.Context(), path, ignore)
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

func step(n int) Record { return Record{noon, Step{Step: n, Epoch: 1, Loss: 1 / float64(n)}} }
func evaluated(n int) Record {
	return Record{noon, Evaluation{Step: n, Figures: []evenweave.Figure{figure("loss", 0.5, -1)}}}
}

func ignore(Record) {}

func kept(t *testing.T, path string) (records []Record, damaged Damaged) {
	t.Helper()
	damaged, err := ReadMetrics(path, func(r Record) { records = append(records, r) })
	if err != nil {
		t.Fatal(err)
	}
	return records, damaged
}

func TestMetricsHoldEachStepOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	keep(t, path, Record{noon, Start{}}, step(1), step(2), step(3), evaluated(2),
		Record{noon, Step{Step: 4, Loss: math.NaN()}})
	keep(t, path, step(3), step(4), evaluated(2), step(5), step(4), evaluated(4)) // resumed from step 2
	keep(t, path)
	// A missed evaluation comes later.
	keep(t, path, step(5), step(6), evaluated(3), evaluated(4), Record{noon, Done{}})
	want := []Record{step(1), step(2), step(3), evaluated(2), step(4), step(5), evaluated(4), step(6), evaluated(3)}
	if got, damaged := kept(t, path); !reflect.DeepEqual(got, want) || damaged.Lines > 0 {
		t.Errorf("got %v, damaged %v", got, damaged)
	}
}

// A paused leader that does not know its successor must not overwrite the successor's lines.
func TestMetricsBelongToTheLast(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	first, err := OpenMetrics(t.Context(), path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	first.Observe(step(1))
	first.Flush()
	second, err := OpenMetrics(t.Context(), path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	second.Observe(step(2))
	first.Observe(evaluated(1)) // the paused leader wakes up
	first.Observe(step(2))
	second.Observe(step(3))
	if err := errors.Join(first.Close(), second.Close()); err != nil {
		t.Fatal(err)
	}
	if got, damaged := kept(t, path); !reflect.DeepEqual(got, []Record{step(1), step(2), step(3)}) ||
		damaged.Lines > 0 {
		t.Errorf("got %v, damaged %v", got, damaged)
	}
}

// inMemory is a directory where a sync takes no time, if this system has one.
func inMemory(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "evenweave-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestMetricsSurviveATornEnd(t *testing.T) {
	path := filepath.Join(inMemory(t), "metrics.jsonl")
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
	records, damaged := kept(t, path)
	if !reflect.DeepEqual(records, []Record{step(1), step(2)}) || damaged != (Damaged{2, 2}) {
		t.Errorf("got %v, damaged %v", records, damaged)
	}
}

func TestMetricsErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "gone", "metrics.jsonl")
	if _, err := OpenMetrics(t.Context(), path, ignore); err == nil {
		t.Error("opened a file in a folder that is not there")
	}
	if _, err := ReadMetrics(path, ignore); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
	if _, err := OpenMetrics(t.Context(), os.DevNull, ignore); err == nil {
		t.Error("opened a device")
	}
	m, err := OpenMetrics(t.Context(), filepath.Join(t.TempDir(), "metrics.jsonl"), ignore)
	if err != nil {
		t.Fatal(err)
	}
	m.file.Close() // writing fails from here on
	m.Observe(step(1))
	m.Observe(step(2))
	if err := m.Close(); err == nil || !strings.Contains(err.Error(), "2 lines") {
		t.Errorf("got %v, want how much is missing", err)
	}
}

// fullDisk refuses bytes beyond its free ones: a write may stop half way.
type fullDisk struct {
	*os.File
	free int64
}

func (d *fullDisk) WriteAt(b []byte, at int64) (int, error) {
	if room := max(0, d.free-at); int64(len(b)) > room {
		n, _ := d.File.WriteAt(b[:room], at)
		return n, syscall.ENOSPC
	}
	return d.File.WriteAt(b, at)
}

// A disk that is full for a while loses no line, and leaves no half-written one.
func TestMetricsOutliveAFullDisk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := OpenMetrics(t.Context(), path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	disk := &fullDisk{m.file.(*os.File), 1000}
	m.writing.Lock()
	m.file = disk
	m.writing.Unlock()
	for i := range 50 {
		m.Observe(step(i + 1))
		m.Flush()
	}
	records, damaged := kept(t, path)
	if damaged.Lines > 0 || len(records) == 0 || len(records) == 50 {
		t.Fatalf("full: %d lines, damaged %v", len(records), damaged)
	}
	m.writing.Lock() // the writer reads it
	disk.free = 1 << 30
	m.writing.Unlock()
	m.Observe(step(51))
	if err := m.Close(); err != nil {
		t.Fatal(err)
	}
	if records, damaged = kept(t, path); len(records) != 51 || damaged.Lines > 0 {
		t.Fatalf("free again: %d lines, damaged %v", len(records), damaged)
	}
	for i, r := range records {
		if r.Event.(Step).Step != i+1 {
			t.Fatalf("line %d is step %d", i+1, r.Event.(Step).Step)
		}
	}
}

// stalledDisk blocks until the gate opens.
type stalledDisk struct {
	*os.File
	entered, gate chan struct{}
}

func (d *stalledDisk) WriteAt(b []byte, at int64) (int, error) {
	select {
	case d.entered <- struct{}{}:
	default:
	}
	<-d.gate
	return d.File.WriteAt(b, at)
}

// Observe never waits for a stalled disk; the pending lines are bounded, and Sync writes whole lines.
func TestMetricsNeverBlockObserve(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	m, err := OpenMetrics(t.Context(), path, ignore)
	if err != nil {
		t.Fatal(err)
	}
	disk := &stalledDisk{m.file.(*os.File), make(chan struct{}, 1), make(chan struct{})}
	m.file = disk
	m.Observe(step(1))
	<-disk.entered // the disk stalls now
	const n = 2 * maxPending / 200
	for i := 2; i <= n; i++ {
		m.Observe(step(i))
	}
	m.mu.Lock()
	pending, lost := len(m.pending), m.lost
	m.mu.Unlock()
	if pending == 0 || pending > maxPending || lost == 0 {
		t.Errorf("%d bytes are kept, %d lines given up", pending, lost)
	}
	close(disk.gate)
	if err := m.Sync(); err != nil {
		t.Fatal(err)
	}
	if records, _ := kept(t, path); len(records) != n-lost {
		t.Errorf("synced: %d lines of %d", len(records), n-lost)
	}
	if err := m.Close(); err == nil || !strings.Contains(err.Error(), "lines were not written") {
		t.Errorf("closed with %v", err)
	}
}

// On a disk that stays full the oldest lines are dropped, and Close says how many.
func TestMetricsAreBoundedOnAFullDisk(t *testing.T) {
	m, err := OpenMetrics(t.Context(), filepath.Join(t.TempDir(), "metrics.jsonl"), ignore)
	if err != nil {
		t.Fatal(err)
	}
	m.file = &fullDisk{m.file.(*os.File), 0}
	m.pending = bytes.Repeat([]byte("{}\n"), maxPending/3)
	m.Observe(step(1))
	m.Flush()
	m.mu.Lock()
	if len(m.pending) > maxPending || m.lost == 0 {
		t.Errorf("%d bytes pending, %d lines lost", len(m.pending), m.lost)
	}
	m.mu.Unlock()
	if m.Close() == nil {
		t.Error("Close does not report the missing lines")
	}
}

// A leader whose term ends while it takes the file over replaces nothing: what is there then is another's.
func TestATakeoverAfterTheTermReplacesNothing(t *testing.T) {
	for _, n := range []int{3, 20000} { // read at once, and not
		path := filepath.Join(t.TempDir(), "metrics.jsonl")
		var before []Record
		for i := 1; i <= n; i++ {
			before = append(before, step(i))
		}
		keep(t, path, before...)
		ctx, cancel := context.WithCancel(t.Context())
		_, err := OpenMetrics(ctx, path, func(r Record) {
			if r.Event.(Step).Step == 1 { // it is paused here for longer than its lease
				other := filepath.Join(t.TempDir(), "metrics.jsonl")
				keep(t, other, append(before, step(n+1))...)
				if err := os.Rename(other, path); err != nil {
					t.Error(err)
				}
				cancel()
			}
		})
		got, _ := kept(t, path)
		left, _ := filepath.Glob(path + ".*")
		if !errors.Is(err, context.Canceled) || len(got) != n+1 || len(left) > 0 {
			t.Errorf("%v: %d steps, want %d; left behind: %v", err, len(got), n+1, left)
		}
	}
}
