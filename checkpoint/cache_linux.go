package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// uncache starts to write a file's last window to the disk, and lets the kernel's cache drop what is on the disk of the
// bytes before. Both are hints.
func uncache(f *os.File, from, end int64) {
	_ = unix.SyncFileRange(int(f.Fd()), from, end-from, unix.SYNC_FILE_RANGE_WRITE)
	_ = unix.Fadvise(int(f.Fd()), 0, from, unix.FADV_DONTNEED)
}

// uncacheAll lets the kernel's cache drop a file.
func uncacheAll(f *os.File) { _ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
