package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"evenweave"
	"evenweave/internal/state"
)

const dir = "/run/checkpoints"

// layout is that of 200 bytes.
func layout() *state.Layout {
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Uint8, Shape: []int{200},
		Role: evenweave.Trained}})
	if err != nil {
		panic(err)
	}
	return l
}

// content is the state of a step.
func content(step int64) *state.Sealed {
	s := state.New(layout(), 16)
	s.Step = step
	copy(s.Image, strings.Repeat(fmt.Sprintf("step %d;", step), 20))
	return state.Seal(s)
}

// payloadOf is what a checkpoint of it holds.
func payloadOf(step int64) string {
	var b strings.Builder
	_, _ = content(step).WriteTo(&b) // never fails
	return b.String()
}

func manifest(step, term int64) *Manifest {
	m := describe(content(step).State)
	m.Job, m.Term = "job", term
	return &m
}

// describe is a manifest that is true of a state.
func describe(s *state.State) Manifest {
	digest := state.NewDigest(s.Layout)
	_, _ = digest.Write(s.Image) // never fails
	return Manifest{Step: s.Step, Epoch: s.Ledger.Epochs(), Fingerprint: s.Fingerprint().String(),
		WeightsSHA256: digest.WeightsSHA256(), Tensors: Tensors(s.Layout)}
}

func save(s *Store, step, term int64) (string, error) {
	of := content(step)
	return s.Save(context.Background(), manifest(step, term), of.Head, func(w io.Writer) error {
		for b := of.Image; len(b) > 0; b = b[min(len(b), 50):] {
			if _, err := w.Write(b[:min(len(b), 50)]); err != nil {
				return err
			}
		}
		return nil
	})
}

func mustSave(t *testing.T, s *Store, step, term int64) string {
	t.Helper()
	path, err := save(s, step, term)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func open(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	s, err := Open(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// checkLatest reads the latest checkpoint back, and returns its step, or -1 if there is none.
func checkLatest(t *testing.T, s *Store) int64 {
	t.Helper()
	e, err := s.Latest(t.Context())
	if errors.Is(err, ErrNone) {
		return -1
	}
	if err != nil {
		t.Fatal(err)
	}
	m, r, err := s.Read(t.Context(), e.Path)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(r)
	if err != nil || r.Close() != nil || string(got) != payloadOf(m.Step) || m.Step != e.Step || m.Job != "job" {
		t.Fatalf("%s came back as step %d with %d bytes: %v", e.Path, m.Step, len(got), err)
	}
	return e.Step
}

// A crash at every single operation, and three ways to lose what was not durable: the latest checkpoint is whole and at
// least as new as the last acknowledged one, and the next leader can go on. Or only the process crashes, and the
// machine loses its power after another one has found a checkpoint, or has also saved one.
func TestCrashAtEveryOperation(t *testing.T) {
	crashed := 0
	for seed := range uint64(20) {
		for failAt := 1; ; failAt++ {
			how := int(seed) % 3
			m := newMemFS(rand.New(rand.NewPCG(seed, uint64(failAt))))
			m.failAt, m.crashes = failAt, true
			acknowledged := int64(-1)
			for step := int64(10); step <= 50 && m.ops < failAt; step += 10 {
				s := open(t, dir, Options{FS: m})
				if _, err := save(s, step, 1+step/30); err == nil {
					acknowledged = step
				} else if !errors.Is(err, errCrash) {
					t.Fatal(err)
				}
				_, _ = s.Prune(t.Context(), 1+step/30, 2)
			}
			if m.ops < failAt {
				break // the whole run needs fewer operations
			}
			crashed++
			if m.failAt = 0; seed/3%3 > 0 {
				next := open(t, dir, Options{FS: m})
				if e, err := next.Durable(t.Context()); err == nil {
					acknowledged = e.Step
				} else if !errors.Is(err, ErrNone) {
					t.Fatal(err)
				}
				if seed/3%3 > 1 {
					mustSave(t, next, 55, 3)
					acknowledged = 55
				}
			}
			m.reboot(how)
			s := open(t, dir, Options{FS: m})
			latest := checkLatest(t, s)
			if latest < acknowledged {
				t.Fatalf("seed %d, crash at operation %d: latest is %d, acknowledged was %d",
					seed, failAt, latest, acknowledged)
			}
			mustSave(t, s, 60, 9)
			if checkLatest(t, s) != 60 {
				t.Fatalf("seed %d, crash at operation %d: cannot go on", seed, failAt)
			}
			if names, _ := m.List(dir); strings.Contains(strings.Join(names, " "), ".ckpt.tmp") {
				t.Fatalf("seed %d, crash at operation %d: left over: %v", seed, failAt, names)
			}
		}
	}
	t.Logf("%d crashes", crashed)
}

// A full disk at any operation: the error says so, nothing is left behind, older checkpoints stay, the next Save works.
func TestDiskFullAtEveryOperation(t *testing.T) {
	for failAt := 1; ; failAt++ {
		m := newMemFS(rand.New(rand.NewPCG(1, uint64(failAt))))
		s := open(t, dir, Options{FS: m})
		mustSave(t, s, 10, 1)
		m.ops, m.failAt, m.err = 0, failAt, syscall.ENOSPC
		_, err := save(s, 20, 1)
		if m.ops < failAt {
			break
		}
		if err != nil && (!errors.Is(err, syscall.ENOSPC) ||
			!strings.Contains(err.Error(), "saving step 20: no space left on device: free space in /run/checkpoints")) {
			t.Fatalf("operation %d: %v", failAt, err)
		}
		if names, _ := m.List(dir); err != nil && strings.Contains(strings.Join(names, " "), "ckpt.tmp") {
			t.Errorf("operation %d: left over: %v", failAt, names)
		}
		if step := checkLatest(t, s); step != 20 && (err == nil || step != 10) {
			t.Errorf("operation %d: latest is %d after %v", failAt, step, err)
		}
		mustSave(t, s, 30, 1)
	}
}

func TestLatestOrder(t *testing.T) {
	s := open(t, dir, Options{FS: newMemFS(nil)})
	if checkLatest(t, s) != -1 {
		t.Error("a checkpoint in an empty store")
	}
	for _, c := range []struct{ step, term, latestStep, latestTerm int64 }{
		{469, 2, 469, 2}, {100, 9, 469, 2}, {469, 10, 469, 10}, {469, 3, 469, 10}, {123456789, 1, 123456789, 1},
		{1e12, 1e15, 1e12, 1e15},
	} {
		mustSave(t, s, c.step, c.term)
		if e, err := s.Latest(t.Context()); err != nil || e.Step != c.latestStep || e.Term != c.latestTerm ||
			e.Manifest.Term != c.latestTerm {
			t.Errorf("after step %d term %d: latest %+v, %v", c.step, c.term, e, err)
		}
	}
	if _, err := save(s, -1, 0); err == nil {
		t.Error("step -1 was saved")
	}
}

// On the real file system: any flipped bit and any truncation is named and skipped; the older one is used.
func TestDamageIsNamedAndSkipped(t *testing.T) {
	tmp := filepath.Join(t.TempDir(), "a", "b")
	var named []string
	s := open(t, tmp, Options{Damaged: func(e *DamagedError) { named = append(named, e.Path) }})
	old, path := mustSave(t, s, 1, 1), mustSave(t, s, 2, 1)
	if target, err := os.Readlink(filepath.Join(tmp, "latest")); err != nil || target != filepath.Base(path) {
		t.Errorf("latest points to %q, %v", target, err)
	}
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	try := func(what string, data []byte) {
		t.Helper()
		named = nil
		if err := os.WriteFile(path, data, 0o666); err != nil {
			t.Fatal(err)
		}
		if step := checkLatest(t, s); step != 1 || len(named) != 1 || named[0] != path {
			t.Fatalf("%s: latest is step %d, named %v", what, step, named)
		}
	}
	for i := range whole {
		flipped := bytes.Clone(whole)
		flipped[i] ^= 1 << (i % 8)
		try(fmt.Sprintf("byte %d flipped", i), flipped)
		try(fmt.Sprintf("cut after %d bytes", i), whole[:i])
	}
	try("one byte more", append(bytes.Clone(whole), 0))
	older, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	try("the bytes of another step", older)

	// Nothing valid is an error that names the damage, never "none".
	if err := os.Remove(old); err != nil {
		t.Fatal(err)
	}
	var damaged *DamagedError
	if _, err := s.Latest(t.Context()); !errors.As(err, &damaged) || errors.Is(err, ErrNone) || damaged.Path != path {
		t.Errorf("only a damaged one: %v", err)
	}
	if _, _, err := Read(t.Context(), filepath.Join(tmp, "no such file")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
}

func TestPruneKeepsTheNewestValid(t *testing.T) {
	m := newMemFS(nil)
	s := open(t, dir, Options{FS: m})
	var paths []string
	for step := int64(1); step <= 6; step++ {
		paths = append(paths, mustSave(t, s, step, 1))
	}
	m.visible[paths[5]].data[40] ^= 1 // the newest, 6, is damaged: it must stay
	if removed, err := s.Prune(t.Context(), 1, 9); err != nil || len(removed) != 0 {
		t.Errorf("fewer than asked for: removed %v, %v", removed, err)
	}
	removed, err := s.Prune(t.Context(), 1, 2)
	if err != nil || strings.Join(removed, " ") != strings.Join([]string{paths[2], paths[1], paths[0]}, " ") {
		t.Errorf("removed %v, %v", removed, err)
	}
	if removed, err := s.Prune(t.Context(), 1, 0, 4); err != nil || len(removed) != 0 {
		t.Errorf("removed %v, %v: step 4 was to be spared", removed, err)
	}
	if removed, err := s.Prune(t.Context(), 1, 0); err != nil || len(removed) != 1 || checkLatest(t, s) != 5 {
		t.Errorf("removed %v, %v", removed, err)
	}
}

func TestContextEndsSaveAndLatest(t *testing.T) {
	m := newMemFS(nil)
	s := open(t, dir, Options{FS: m})
	mustSave(t, s, 1, 1)
	cause := errors.New("no longer leader")
	ctx, cancel := context.WithCancelCause(t.Context())
	_, err := s.Save(ctx, &Manifest{Step: 2, Term: 1}, nil, func(w io.Writer) error {
		cancel(cause)
		_, err := w.Write([]byte("x"))
		return err
	})
	if !errors.Is(err, cause) {
		t.Errorf("Save: %v", err)
	}
	if _, err := s.Latest(ctx); !errors.Is(err, cause) {
		t.Errorf("Latest: %v", err)
	}
	if checkLatest(t, s) != 1 {
		t.Error("the cancelled checkpoint is there")
	}
}

// A paused leader that wakes up takes nothing away from its successor.
func TestOldLeaderIsHarmless(t *testing.T) {
	m := newMemFS(nil)
	s, old := open(t, dir, Options{FS: m}), open(t, dir, Options{FS: m})
	_, err := s.Save(t.Context(), manifest(9, 2), content(9).Head, func(w io.Writer) error {
		mustSave(t, old, 5, 1) // in the middle of the successor's write
		_, err := w.Write(content(9).Image)
		return err
	})
	if err != nil || checkLatest(t, s) != 9 {
		t.Fatal(err)
	}
	mustSave(t, old, 7, 1)
	if link := m.visible[dir+"/latest"]; checkLatest(t, s) != 9 ||
		!strings.HasPrefix(string(link.data), "step-00000009") {
		t.Errorf("the old leader moved latest to %s", link.data)
	}
}

func FuzzVerify(f *testing.F) {
	var whole []byte
	m := newMemFS(nil)
	if path, err := save(open(f, dir, Options{FS: m}), 7, 1); err == nil {
		whole = m.visible[path].data
	}
	f.Add(whole)
	f.Add(whole[:60])
	f.Add(sealed(`{"format":3}`, "payload"))
	for _, manifest := range hostileManifests() {
		f.Add(sealed(manifest, "payload"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		m, p, err := verify(t.Context(), bytes.NewReader(data))
		if err != nil {
			return
		}
		got, err := io.ReadAll(p)
		if err != nil || m.Format != Format || !bytes.Contains(data, got) {
			t.Fatalf("accepted %+v with %d bytes, %v", m, len(got), err)
		}
		if len(m.Tensors) == 0 {
			return
		}
		layout, err := m.Layout()
		if err != nil {
			t.Fatal(err)
		}
		for i, tensor := range layout.Tensors {
			if n := tensor.Bytes(); n < 1 || m.Tensors[i].Offset < 0 || m.Tensors[i].Offset > layout.Size-n {
				t.Fatalf("tensor %+v of %d bytes", tensor, layout.Size)
			}
		}
	})
}

// A newer name that is seen but not durable, since its directory could not be synced, is no reason to remove the older.
func TestPruneRemovesOnlyBehindDurable(t *testing.T) {
	m := newMemFS(nil)
	s := open(t, dir, Options{FS: m})
	mustSave(t, s, 10, 1)
	m.ops, m.err = 0, syscall.EIO
	for m.failAt = 1; ; m.failAt++ { // until the last operation of a Save, the sync, fails: the file is there
		m.ops = 0
		if _, err := save(s, 20, 1); err != nil && checkLatest(t, s) == 20 {
			break
		}
		delete(m.visible, filepath.Join(dir, fileName(20, 1)))
	}
	m.ops, m.failAt = 0, 1
	if removed, err := s.Prune(t.Context(), 1, 1); !errors.Is(err, syscall.EIO) || len(removed) != 0 {
		t.Errorf("the sync fails: removed %v, %v", removed, err)
	}
	if removed, err := s.Prune(t.Context(), 1, 1); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	delete(m.durable, filepath.Join(dir, fileName(10, 1))) // the removal did reach the disk
	m.reboot(0)
	if checkLatest(t, s) != 20 {
		t.Error("the newer was not durable when the older was removed")
	}
}
