package progress

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
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

// maxPending bounds the bytes kept while the disk is full or stalls: about 10,000 steps, and as many again in a write.
const maxPending = 4 << 20

// maxEvaluated bounds the evaluations that a file is known to have: older ones are not made again.
const maxEvaluated = 4096

// held is what a file has: all steps up to one, because they come in order, and some evaluations, because a missed one
// may come later.
type held struct {
	step        int
	evaluations []int // the newest, sorted
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
		i, there := slices.BinarySearch(h.evaluations, e.Step)
		if full := len(h.evaluations) == maxEvaluated; there || full && i == 0 {
			return false
		} else if h.evaluations = slices.Insert(h.evaluations, i, e.Step); full {
			h.evaluations = slices.Delete(h.evaluations, 0, 1)
		}
		return true
	}
	return false
}

// OpenMetrics opens the file at path to append to it, or creates it; each gets the records that it holds. It replaces
// the file by a copy: a leader that was paused and still has the old file open then writes where no reader looks. It
// cuts off a half-written last line. It keeps damaged lines before that. If ctx ends first, the file stays as it was.
// The caller must Close it.
func OpenMetrics(ctx context.Context, path string, each func(Record)) (*Metrics, error) {
	f, err := regular.Write(path)
	if err != nil {
		return nil, fmt.Errorf("progress: open metrics: %w", err)
	}
	m := &Metrics{file: f, wake: make(chan struct{}, 1), over: make(chan struct{})}
	if err := m.takeOver(ctx, path, f, each); err != nil {
		return nil, fmt.Errorf("progress: open metrics %s: %w", path, errors.Join(err, m.file.Close()))
	}
	go m.write()
	return m, nil
}

// takeOver reads what the file holds and copies it meanwhile. Where no copy is possible, because the disk is full, it
// goes on with the file itself. A copy that is complete when another leads may not replace that one's file.
func (m *Metrics) takeOver(ctx context.Context, path string, f *os.File, each func(Record)) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	c := &copying{ctx: ctx, from: f}
	read := func() error {
		_, size, err := readRecords(c, info.Size(), func(r Record) {
			m.seen.fresh(r.Event)
			each(r)
		})
		m.size = size
		return err
	}
	own, _ := regular.ReplaceOpen(path, func(w io.Writer) error {
		c.to = w
		err = read()
		return errors.Join(err, c.err)
	}, ctx.Err)
	if c.to == nil {
		err = read()
	}
	if own != nil { // all was read and copied
		_ = f.Close()
		m.file = own
	} else if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return err
	}
	return m.file.Truncate(m.size)
}

// copying reads until ctx ends, and copies what is read until that fails.
type copying struct {
	ctx  context.Context
	from io.Reader
	to   io.Writer // nil: no copy
	err  error
}

func (c *copying) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	n, err := c.from.Read(p)
	if c.to != nil && c.err == nil {
		_, c.err = c.to.Write(p[:n])
	}
	return n, err
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
