package checkpoint

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// failing gives an error where one file is opened, or when it is read.
type failing struct {
	OS
	base   string
	opened error
	read   error
}

func (f failing) Open(name string) (io.ReadSeekCloser, error) {
	of, err := f.OS.Open(name)
	if err != nil || filepath.Base(name) != f.base {
		return of, err
	}
	if f.opened != nil {
		return nil, errors.Join(&os.PathError{Op: "open", Path: name, Err: f.opened}, of.Close())
	}
	return failingFile{of, &os.PathError{Op: "read", Path: name, Err: f.read}}, nil
}

type failingFile struct {
	io.ReadSeekCloser
	err error
}

func (f failingFile) Read([]byte) (int, error) { return 0, f.err }

// Only what shows that a file is damaged makes an older one count as the newest. What else keeps this process from
// reading it is an error: nothing goes back to an older checkpoint for it, and nothing is removed.
func TestWhatCannotBeReadMayBeWhole(t *testing.T) {
	here := t.TempDir()
	writer := open(t, here, Options{})
	for step := int64(1); step <= 3; step++ {
		mustSave(t, writer, step, 1)
	}
	newest := fileName(3, 1)
	whole := []error{syscall.EACCES, syscall.EPERM, syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, syscall.ESTALE,
		syscall.EAGAIN, syscall.ETIMEDOUT, syscall.ENOTCONN}
	for _, cause := range append(whole, syscall.EIO, syscall.ENXIO) {
		damage := errors.Is(cause, syscall.EIO) || errors.Is(cause, syscall.ENXIO)
		for when, fs := range map[string]failing{"opening": {base: newest, opened: cause},
			"reading": {base: newest, read: cause}} {
			skipped := 0
			s := open(t, here, Options{FS: fs, Damaged: func(*DamagedError) { skipped++ }})
			e, err := s.Latest(t.Context())
			if damage && (err != nil || e.Step != 2 || skipped != 1) {
				t.Errorf("%s: %v: found %v, skipped %d, %v; want step 2", when, cause, e, skipped, err)
			}
			if !damage && (!errors.Is(err, cause) || errors.As(err, new(*DamagedError)) || skipped != 0) {
				t.Errorf("%s: %v: found %v, skipped %d, %v; want the error", when, cause, e, skipped, err)
			}
			if removed, err := s.Prune(t.Context(), 1, 1); !damage && (len(removed) > 0 || !errors.Is(err, cause)) {
				t.Errorf("%s: %v: removed %v, %v", when, cause, removed, err)
			}
			if !damage {
				continue
			}
			mustSave(t, writer, 1, 1) // which was pruned
		}
	}
}

// unsynced fails to sync directories.
type unsynced struct {
	OS
	err error
}

func (u unsynced) SyncDir(dir string) error { return &os.PathError{Op: "sync", Path: dir, Err: u.err} }

// TestAFileSystemThatSyncsNoDirectory holds no durable checkpoint: the error says so, and what to do. Nothing else that
// a sync gives is explained by that.
func TestAFileSystemThatSyncsNoDirectory(t *testing.T) {
	for _, err := range []error{syscall.EINVAL, syscall.ENOTSUP, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EIO} {
		here := t.TempDir()
		_, got := save(open(t, here, Options{FS: unsynced{err: err}}), 1, 1)
		explained := err != error(syscall.EIO)
		if !errors.Is(got, err) || strings.Contains(got.Error(), "choose a directory on one that can") != explained {
			t.Errorf("%v: saving gives %v", err, got)
		}
		mustSave(t, open(t, here, Options{}), 1, 1) // as an older build has
		_, got = open(t, here, Options{FS: unsynced{err: err}}).Durable(t.Context())
		if !errors.Is(got, err) || strings.Contains(got.Error(), here+" cannot sync a directory") != explained {
			t.Errorf("%v: what is found is durable, or not: %v", err, got)
		}
	}
}
