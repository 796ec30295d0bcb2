package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"sync"
)

// memFS is a file system in memory that knows what is durable: written data only after Sync, names only after SyncDir.
// The operation number failAt, from 1, fails: alone, with err, or, if crashes, together with all that follow. What the
// failing operation does before it fails, and what survives the crash, is drawn from r.
type memFS struct {
	mu      sync.Mutex
	r       *rand.Rand
	visible map[string]*node
	durable map[string]*node
	ops     int
	failAt  int
	err     error
	crashes bool
}

type node struct {
	dir          bool
	data, synced []byte
}

var errCrash = errors.New("the machine crashed")

func newMemFS(r *rand.Rand) *memFS {
	root := &node{dir: true}
	return &memFS{r: r, visible: map[string]*node{"/": root}, durable: map[string]*node{"/": root}}
}

// step counts an operation and returns the error that it has to return; it may have been carried out nevertheless.
func (m *memFS) step() (carryOut bool, err error) {
	m.ops++
	switch {
	case m.failAt == 0 || m.ops < m.failAt || m.ops > m.failAt && !m.crashes:
		return true, nil
	case m.crashes:
		return m.ops == m.failAt && m.r.IntN(2) == 0, errCrash
	}
	return false, m.err
}

// reboot forgets what was not durable: wholly, not at all, or each name and each byte by lot.
func (m *memFS) reboot(how int) {
	if how == 2 {
		for name := range maps.Clone(m.visible) {
			if m.r.IntN(2) == 0 {
				m.durable[name] = m.visible[name]
			}
		}
		for name := range maps.Clone(m.durable) {
			if m.visible[name] == nil && m.r.IntN(2) == 0 {
				delete(m.durable, name)
			}
		}
	}
	if how != 1 {
		m.visible = maps.Clone(m.durable)
	}
	for name, n := range m.visible {
		switch {
		case m.visible[filepath.Dir(name)] == nil:
			delete(m.visible, name)
		case how == 0:
			n.data = bytes.Clone(n.synced)
		case how == 2 && !bytes.Equal(n.data, n.synced):
			n.data = n.data[:m.r.IntN(len(n.data)+1)]
			for i := range n.data {
				if m.r.IntN(10) == 0 {
					n.data[i] = 0 // blocks that were allocated and not written
				}
			}
		}
		n.synced = bytes.Clone(n.data)
	}
	m.durable = maps.Clone(m.visible)
	m.ops, m.failAt, m.crashes = 0, 0, false
}

func (m *memFS) do(f func() error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	carryOut, err := m.step()
	if carryOut {
		if own := f(); own != nil {
			return own
		}
	}
	return err
}

func (m *memFS) Mkdir(dir string) error { return m.add(dir, &node{dir: true}) }

func (m *memFS) Symlink(target, name string) error {
	return m.add(name, &node{data: []byte(target), synced: []byte(target)})
}

func (m *memFS) add(name string, n *node) error {
	return m.do(func() error {
		if m.visible[name] != nil {
			return fmt.Errorf("create %s: %w", name, fs.ErrExist)
		}
		m.visible[name] = n
		return nil
	})
}

func (m *memFS) Create(name string) (File, error) {
	n := &node{}
	if err := m.add(name, n); err != nil {
		return nil, err
	}
	return &memFile{m, n}, nil
}

type memFile struct {
	m *memFS
	n *node
}

func (f *memFile) Write(b []byte) (int, error) {
	written := 0
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	carryOut, err := f.m.step()
	if carryOut {
		written = len(b)
		if err != nil {
			written = f.m.r.IntN(len(b) + 1)
		}
		f.n.data = append(f.n.data, b[:written]...)
	}
	return written, err
}

func (f *memFile) WriteAt(b []byte, at int64) (written int, err error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	carryOut, err := f.m.step()
	if carryOut {
		written = len(b)
		if err != nil {
			written = f.m.r.IntN(len(b) + 1)
		}
		copy(f.n.data[at:], b[:written])
	}
	return written, err
}

func (f *memFile) Sync() error {
	return f.m.do(func() error { f.n.synced = bytes.Clone(f.n.data); return nil })
}

func (f *memFile) Close() error { return f.m.do(func() error { return nil }) }

func (m *memFS) Open(name string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.visible[name]
	if n == nil {
		return nil, fmt.Errorf("open %s: %w", name, fs.ErrNotExist)
	}
	return struct {
		io.ReadSeeker
		io.Closer
	}{bytes.NewReader(bytes.Clone(n.data)), io.NopCloser(nil)}, nil
}

func (m *memFS) Rename(from, to string) error {
	return m.do(func() error {
		if m.visible[from] == nil {
			return fmt.Errorf("rename %s: %w", from, fs.ErrNotExist)
		}
		m.visible[to] = m.visible[from]
		delete(m.visible, from)
		return nil
	})
}

func (m *memFS) Remove(name string) error {
	return m.do(func() error {
		if m.visible[name] == nil {
			return fmt.Errorf("remove %s: %w", name, fs.ErrNotExist)
		}
		delete(m.visible, name)
		return nil
	})
}

func (m *memFS) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.visible[dir] == nil {
		return nil, fmt.Errorf("list %s: %w", dir, fs.ErrNotExist)
	}
	var names []string
	for name := range m.visible {
		if name != dir && filepath.Dir(name) == dir {
			names = append(names, filepath.Base(name))
		}
	}
	slices.Sort(names) // so that a seed gives the same run again
	return names, nil
}

func (m *memFS) SyncDir(dir string) error {
	return m.do(func() error {
		for name := range maps.Clone(m.durable) {
			if filepath.Dir(name) == dir && m.visible[name] == nil {
				delete(m.durable, name)
			}
		}
		for name, n := range m.visible {
			if filepath.Dir(name) == dir {
				m.durable[name] = n
			}
		}
		return nil
	})
}
