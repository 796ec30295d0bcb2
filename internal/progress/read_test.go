package progress

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"runtime/debug"
	"testing"
)

// readAll is how files were read before they were read line by line: whole, by Decode alone.
func readAll(data []byte) (records []Record, damaged Damaged) {
	number := 0
	for line := range bytes.Lines(data[:bytes.LastIndexByte(data, '\n')+1]) {
		number++
		if len(line) <= maxLine && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if r, err := Decode(line); err == nil && len(line) <= maxLine {
			records = append(records, r)
		} else if damaged.Lines++; damaged.First == 0 {
			damaged.First = number
		}
	}
	return records, damaged
}

func checkRead(t *testing.T, data []byte) {
	t.Helper()
	var got []Record
	damaged, whole, err := readRecords(bytes.NewReader(data), int64(len(data)), func(r Record) { got = append(got, r) })
	want, bad := readAll(data)
	if err != nil || !reflect.DeepEqual(got, want) || damaged != bad ||
		whole != int64(bytes.LastIndexByte(data, '\n')+1) {
		t.Errorf("%.2000q\ngives %+v, damaged %v, %d bytes of whole lines, %v;\nwant %+v, damaged %v", data, got,
			damaged,
			whole, err, want, bad)
	}
}

// Whatever a file holds, it is read as if it were read whole.
func FuzzReadMetrics(f *testing.F) {
	var all []byte
	for _, r := range story() {
		line, _ := Encode(r)
		all = append(all, line...)
		f.Add(line, uint16(0), []byte("01"))
	}
	f.Add(all, uint16(100), []byte("\n"))
	line, _ := Encode(Record{noon, Step{Step: 7, Loss: 0.25, Metrics: []Metric{{"mae", 1}, {"bits", 2}}}})
	for _, part := range []string{`"Loss":1,`, `"loss":2,`, `"mae":3,`, `"bits":1e999,`, `"x":-0.5E+3,`, `"x":01,`,
		`"x":.5,`, `"x":5.,`, `"x":+1,`, `"x":1_0,`, `"x":0x1,`, `"x":null,`, `"x":"1",`, `"\u006cr":1,`, `"":1,`,
		`"\u212a":1,`,
		"\"\u212a\":1,", `"step":1.0,`, `"step":-0,`, `"time":1,`, `"x" :1,`, `"x": 1,`, `"x":{"step":2},`, ` `, `}`} {
		f.Add(line, uint16(bytes.IndexByte(line, ',')+1), []byte(part))
		f.Add(append(line, line...), uint16(bytes.Index(line, []byte(`"loss"`))), []byte(part))
		f.Add(line, uint16(bytes.Index(line, []byte(`"bits"`))), []byte(part))
	}
	f.Fuzz(func(t *testing.T, data []byte, at uint16, part []byte) { // a part is put into a line
		cut := min(int(at), len(data))
		checkRead(t, append(append(append([]byte(nil), data[:cut]...), part...), data[cut:]...))
	})
}

// Lines that are longer than a buffer are damaged, and the others count.
func TestLongLinesAreSkipped(t *testing.T) {
	line, _ := Encode(step(1))
	for _, length := range []int{maxLine - 1, maxLine, maxLine + 1, 2*maxLine - 1, 2 * maxLine, 5*maxLine + 3} {
		padded := append(bytes.TrimRight(line, "\n"), bytes.Repeat([]byte(" "), length-len(line))...)
		file := bytes.Join([][]byte{line, append(padded, '\n'), line, padded[:length-1]}, nil)
		checkRead(t, file)
		checkRead(t, append(file, '\n'))
	}
	checkRead(t, bytes.Repeat([]byte(" "), 3*maxLine))
}

// Steps as they are written are read without [Decode]: a week of them takes no longer than a look at the page.
func TestStepsAreDecodedFast(t *testing.T) {
	var d stepDecoder
	line, _ := Encode(Record{noon, Step{Step: 7, Epoch: 1, Loss: 0.1234567890123, Generation: 2, Workers: 3,
		Images:  900,
		Seconds: 0.03, SamplesPerSecond: 1e5, ComputeMS: 20.5, ReduceMS: 1e-9, WaitMS: 3, UpdateMS: 4, Skips: 1,
		Metrics: []Metric{{"accuracy", 0.9}, {"f1 (macro)", math.SmallestNonzeroFloat64}}}})
	want, err := Decode(line)
	if got, ok := d.decode(line); err != nil || !ok || !reflect.DeepEqual(got, want) {
		t.Fatalf("%s is read as %+v, %v; want %+v, %v", line, got, ok, want, err)
	}
	if n := testing.AllocsPerRun(100, func() { d.decode(line) }); n > 4 {
		t.Errorf("%v allocations a line", n)
	}
}

// endless is a learning curve of as many bytes as are asked for.
type endless struct {
	step int
	rest []byte
}

func (e *endless) Read(p []byte) (n int, err error) {
	for n < len(p) {
		if len(e.rest) == 0 {
			e.step++
			e.rest, err = Encode(step(e.step))
		}
		c := copy(p[n:], e.rest)
		n, e.rest = n+c, e.rest[c:]
	}
	return n, err
}

// Memory does not grow with the file: a takeover and a reader take no more for 40 MB, be it one line.
func TestMetricsAreReadInBoundedMemory(t *testing.T) {
	path := filepath.Join(t.TempDir(), "metrics.jsonl")
	defer debug.SetGCPercent(debug.SetGCPercent(10))
	for name, fill := range map[string]func(io.Writer) error{
		"steps": func(w io.Writer) error { _, err := io.CopyN(w, new(endless), 40<<20); return err },
		"one line": func(w io.Writer) error {
			return errors.Join(w.(*os.File).Truncate(40 << 20))
		},
	} {
		f, err := os.Create(path)
		if err = errors.Join(err, fill(f), f.Close()); err != nil {
			t.Fatal(err)
		}
		var most, now runtime.MemStats
		seen := 0
		look := func(Record) {
			if seen++; seen%50000 == 0 {
				runtime.ReadMemStats(&now)
				most.HeapAlloc = max(most.HeapAlloc, now.HeapAlloc)
			}
		}
		runtime.ReadMemStats(&now)
		before, allocated := now.HeapAlloc, now.TotalAlloc
		m, err := OpenMetrics(t.Context(), path, look)
		if err == nil {
			err = m.Close()
		}
		_, again := ReadMetrics(path, look)
		runtime.ReadMemStats(&now)
		if err := errors.Join(err, again); err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: %d records, %d bytes of heap at most, %d allocated", name, seen, most.HeapAlloc-before,
			now.TotalAlloc-allocated)
		if most.HeapAlloc > before+8<<20 || seen == 0 && now.TotalAlloc-allocated > 8<<20 {
			t.Errorf("%s: %d bytes of heap, from %d", name, most.HeapAlloc, before)
		}
	}
}

func BenchmarkReadMetrics(b *testing.B) {
	data, err := io.ReadAll(io.LimitReader(new(endless), 30<<20))
	if err != nil {
		b.Fatal(err)
	}
	steps := 0
	for b.Loop() {
		if _, _, err := readRecords(bytes.NewReader(data), int64(len(data)), func(Record) { steps++ }); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(steps), "ns/step")
}
