package progress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"evenweave/internal/regular"
)

// Metrics keeps the learning curve in a file of JSON lines: every [Step] and [Evaluation] once, in the form of
// [Encode]. After a resume it skips the steps that the file has already: exactness makes them equal bit for bit.
//
// Its own goroutine writes, so that a disk that stalls never blocks Observe.
type Metrics struct {
	writing sync.Mutex // held while the file is written
	file    metricsFile
	size    int64 // bytes of whole lines in the file

	mu      sync.Mutex // never held while the file is written
	pending []byte     // whole lines, not yet written
	lost    int        // lines dropped because too many were pending
	err     error      // of the last attempt to write
	closed  bool
	seen    held

	wake chan struct{}
	over chan struct{} // closed when the writer has ended
}

// metricsFile is the part of *os.File that Metrics uses.
type metricsFile interface {
	io.WriterAt
	Truncate(size int64) error
	Sync() error
	Close() error
}

// maxFile bounds what is read of a file: a million steps take some 300 MB.
const maxFile = 1 << 30

// maxPending bounds the bytes kept while the disk is full or stalls: about 10,000 steps, and as many again in a write.
const maxPending = 4 << 20

// held is what a file has: all steps up to one, because they come in order, and some evaluations, because a missed one
// may come later.
type held struct {
	step        int
	evaluations map[int]bool
}

// fresh reports whether the file lacks e, and records that it has e now.
func (h *held) fresh(e Event) bool {
	switch e := e.(type) {
	case Step:
		if e.Step > h.step {
			h.step = e.Step
			return true
		}
	case Evaluation:
		if !h.evaluations[e.Step] {
			h.evaluations[e.Step] = true
			return true
		}
	}
	return false
}

// OpenMetrics opens the file at path to append to it, or creates it. It replaces the file by a copy: a leader that was
// paused and still has the old file open then writes where no reader looks. It cuts off a half-written last line. It
// keeps damaged lines before that, which [ReadMetrics] skips. The caller must Close it.
func OpenMetrics(path string) (*Metrics, error) {
	f, err := regular.Write(path)
	if err != nil {
		return nil, fmt.Errorf("progress: open metrics: %w", err)
	}
	m := &Metrics{file: f, seen: held{evaluations: map[int]bool{}}, wake: make(chan struct{}, 1),
		over: make(chan struct{})}
	lines, err := m.recover(f)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("progress: open metrics %s: %w", path, err)
	}
	own, _ := regular.ReplaceOpen(path, func(w io.Writer) error { _, err := w.Write(lines); return err })
	if own != nil { // otherwise the disk is full: append to the old file
		_ = f.Close()
		m.file = own
	}
	go m.write()
	return m, nil
}

// recover reads what the file holds, and cuts off a half-written last line.
func (m *Metrics) recover(f *os.File) (lines []byte, err error) {
	if info, err := f.Stat(); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() { // a device may have no end
		return nil, fmt.Errorf("it is no regular file but %s", info.Mode())
	} else if info.Size() > maxFile {
		return nil, fmt.Errorf("it has %d bytes: expected at most %d; move it away to begin another", info.Size(),
			maxFile)
	}
	data, err := io.ReadAll(f)
	if err != nil {
		return nil, err
	}
	lines = data[:bytes.LastIndexByte(data, '\n')+1]
	records, _ := parseMetrics(lines)
	for _, r := range records {
		m.seen.fresh(r.Event)
	}
	m.size = int64(len(lines))
	return lines, f.Truncate(m.size)
}

// Observe appends r if it belongs to the curve and is not in the file yet. It never waits for the disk. Lines that a
// full disk refuses are kept and written with the next.
func (m *Metrics) Observe(r Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed || !m.seen.fresh(r.Event) {
		return
	}
	line, err := Encode(r)
	if err != nil {
		return // a loss that is no number ends the job elsewhere
	}
	m.pending = append(m.pending, line...)
	m.bound()
	select {
	case m.wake <- struct{}{}:
	default:
	}
}

// bound drops the oldest lines if too many are pending.
func (m *Metrics) bound() {
	for len(m.pending) > maxPending {
		m.pending = m.pending[bytes.IndexByte(m.pending, '\n')+1:]
		m.lost++
	}
}

func (m *Metrics) write() {
	defer close(m.over)
	for range m.wake {
		m.Flush()
	}
}

// Flush writes all pending lines, or none.
func (m *Metrics) Flush() {
	m.writing.Lock()
	defer m.writing.Unlock()
	m.mu.Lock()
	lines := m.pending
	m.pending = nil
	m.mu.Unlock()
	if len(lines) == 0 {
		return
	}
	n, err := m.file.WriteAt(lines, m.size)
	if err == nil {
		m.size += int64(n)
	} else {
		err = errors.Join(err, m.file.Truncate(m.size))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err = err; err != nil {
		m.pending = append(lines, m.pending...)
		m.bound()
	}
}

// Sync makes all observed records survive a crash of the machine.
func (m *Metrics) Sync() error {
	m.Flush()
	if err := m.file.Sync(); err != nil {
		return fmt.Errorf("progress: metrics: %w", err)
	}
	return nil
}

// Close writes the pending lines and closes the file. Its error says what the file lacks.
func (m *Metrics) Close() error {
	m.mu.Lock()
	closed := m.closed
	if m.closed = true; !closed {
		close(m.wake)
	}
	m.mu.Unlock()
	if closed {
		return nil
	}
	<-m.over
	m.Flush()
	err := errors.Join(m.err, m.file.Close())
	if lacks := m.lost + bytes.Count(m.pending, []byte{'\n'}); lacks > 0 {
		err = errors.Join(fmt.Errorf("%d lines were not written", lacks), err)
	}
	if err != nil {
		return fmt.Errorf("progress: metrics: %w", err)
	}
	return nil
}

// ReadMetrics returns the records of the file at path in its order, and the numbers (from 1) of damaged lines, which it
// skips. It may be called while the file is being written.
func ReadMetrics(path string) (records []Record, damaged []int, err error) {
	data, err := regular.Read(path, maxFile)
	if err != nil {
		return nil, nil, fmt.Errorf("progress: read metrics: %w", err)
	}
	records, damaged = parseMetrics(data)
	return records, damaged, nil
}

func parseMetrics(data []byte) (records []Record, damaged []int) {
	number := 0
	for line := range bytes.Lines(data) {
		number++
		if len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		r, err := Decode(line)
		if err != nil {
			damaged = append(damaged, number)
			continue
		}
		records = append(records, r)
	}
	return records, damaged
}
