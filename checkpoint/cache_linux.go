package checkpoint

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// uncache starts to write a file's last window to the disk, and lets the kernel's cache drop what is on the disk of the
// bytes before. Where that cannot be done, nothing is lost; an error says that the window may not be on the disk, which
// a later fsync need not repeat.
func uncache(f *os.File, from, end int64) error {
	err := unix.SyncFileRange(int(f.Fd()), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	if slices.Contains([]error{unix.EIO, unix.ENOSPC, unix.EDQUOT, unix.EUCLEAN, unix.EROFS}, err) {
		return &os.PathError{Op: "sync_file_range", Path: f.Name(), Err: err}
	}
	if from > 0 { // all of the file, otherwise
		_ = unix.Fadvise(int(f.Fd()), 0, from, unix.FADV_DONTNEED)
	}
	return nil
}

// uncacheAll lets the kernel's cache drop a file.
func uncacheAll(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
