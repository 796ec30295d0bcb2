package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"strings"
	"syscall"
	"time"
)

// Format is the version of the file format that this package writes and reads.
const Format = 3

const (
	magicOfAll  = "EVWCKPT" // then a digit, the format
	magic       = magicOfAll + "3"
	headerSize  = 16
	trailerSize = 16 + sha256.Size
	maxManifest = 1 << 20 // bytes; decoded, a hostile one takes some 20 times as much
)

// Manifest says what a checkpoint is.
type Manifest struct {
	Format        int             `json:"format"` // set by Save
	Job           string          `json:"job"`    // UUID
	Task          string          `json:"task"`   // its name
	Spec          json.RawMessage `json:"spec,omitempty"`
	Numerics      string          `json:"numerics,omitempty"`
	NumericsParts string          `json:"numerics_parts,omitempty"`
	Step          int64           `json:"step"` // committed updates
	Epoch         int64           `json:"epoch"`
	Term          int64           `json:"term"`           // of the leader that saved it
	Fingerprint   string          `json:"fingerprint"`    // of the state
	WeightsSHA256 string          `json:"weights_sha256"` // of the trained tensors, then of the averaged ones
	Tensors       []Tensor        `json:"tensors"`        // what the state is made of
	Created       time.Time       `json:"created"`
	Complete      bool            `json:"complete"` // the job's last step
}

func (m Manifest) validate() error {
	if m.Format != Format {
		return fmt.Errorf("format %d: this program reads format %d", m.Format, Format)
	}
	if m.Step < 0 || m.Epoch < 0 || m.Term < 0 {
		return fmt.Errorf("manifest: step %d, epoch %d, term %d: expected none below 0", m.Step, m.Epoch, m.Term)
	}
	if _, err := m.Layout(); err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

// encode writes a whole file: header, manifest, the head of the payload, what rest produces, trailer. Since rest may
// change the manifest, that is written again, and the hash is made last.
func encode(ctx context.Context, f File, m *Manifest, head []byte, rest func(io.Writer) error) error {
	before, err := m.head()
	if err != nil {
		return err
	}
	w := &countingWriter{ctx: ctx, w: f}
	for _, p := range [][]byte{before, head} {
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	if err := rest(w); err != nil {
		return err
	}
	whole, err := m.head()
	switch {
	case err != nil:
		return err
	case len(whole) != len(before):
		return fmt.Errorf("manifest of %d bytes, of %d after the payload: expected as many", len(before), len(whole))
	case !bytes.Equal(whole, before):
		if _, err := f.WriteAt(whole, 0); err != nil {
			return err
		}
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(w.n-int64(len(whole))))
	trailer = binary.LittleEndian.AppendUint64(trailer, uint64(len(head)))
	_, err = w.Write(append(trailer, hashOf(whole, head, trailer)...))
	return err
}

// hashOf is the SHA-256 of a file.
func hashOf(parts ...[]byte) []byte {
	hash := sha256.New()
	for _, p := range parts {
		hash.Write(p)
	}
	return hash.Sum(nil)
}

// head is a file's header and manifest.
func (m *Manifest) head() ([]byte, error) {
	manifest, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("manifest: %w", err)
	}
	if len(manifest) > maxManifest {
		return nil, fmt.Errorf("manifest of %d bytes: at most %d", len(manifest), maxManifest)
	}
	return append(binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(manifest))), manifest...), nil
}

// countingWriter counts what it passes on, until ctx ends.
type countingWriter struct {
	ctx context.Context
	w   io.Writer
	n   int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// envelope is what is around a payload.
type envelope struct {
	head    []byte // header and manifest
	payload int64  // bytes
	covered int64  // by the hash: so many of the payload's first bytes
	trailer [trailerSize]byte
}

// unwrap reads the envelope of a file, and leaves f at the payload. Nothing is hashed.
func unwrap(f io.ReadSeeker) (*envelope, error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, err
	}
	if size < headerSize+trailerSize {
		return nil, fmt.Errorf("%d bytes are too few for a checkpoint: it was cut off", size)
	}
	e := &envelope{head: make([]byte, headerSize)}
	if err := errors.Join(readAt(f, size-trailerSize, e.trailer[:]), readAt(f, 0, e.head)); err != nil {
		return nil, err
	}
	switch format, ours := strings.CutPrefix(string(e.head[:len(magic)]), magicOfAll); {
	case ours && (format == "1" || format == "2"):
		return nil, fmt.Errorf("it has format %s, which this program does not read (it reads format %d): evaluate it, "+
			"or go on from it, with the build that wrote it, made before 29 November 2026", format, Format)
	case !ours || format != magic[len(magicOfAll):]:
		return nil, fmt.Errorf("starts with %q, expected %q: not a checkpoint of this format", e.head[:len(magic)],
			magic)
	}
	length := binary.LittleEndian.Uint64(e.head[len(magic):])
	payload, covered := binary.LittleEndian.Uint64(e.trailer[:]), binary.LittleEndian.Uint64(e.trailer[8:])
	rest := uint64(size - headerSize - trailerSize)
	if length > maxManifest || length > rest || rest-length != payload || covered < 1 || covered > payload {
		return nil, fmt.Errorf("the lengths within do not add up to the file's %d bytes: it was cut off or overwritten",
			size)
	}
	e.payload, e.covered = int64(payload), int64(covered)
	e.head = append(e.head, make([]byte, length)...)
	_, err = io.ReadFull(f, e.head[headerSize:])
	return e, err
}

// verify reads a whole file, checks it, and leaves f at the payload that it returns.
func verify(ctx context.Context, f io.ReadSeeker) (m Manifest, p *payload, err error) {
	e, err := unwrap(f)
	if err != nil {
		return m, nil, err
	}
	r := contextReader{ctx, f}
	if _, err := io.CopyN(io.Discard, e.reader(r), e.covered); err != nil {
		return m, nil, err
	}
	if m, err = e.manifest(); err != nil {
		return m, nil, err
	}
	begin := int64(len(e.head))
	if _, err := f.Seek(begin, io.SeekStart); err != nil {
		return m, nil, err
	}
	if err := m.holds(io.LimitReader(r, e.payload), e.payload-e.covered); err != nil {
		return m, nil, err
	}
	_, err = f.Seek(begin, io.SeekStart)
	return m, e.reader(f), err
}

// reader reads the payload from r, which is at its beginning.
func (e *envelope) reader(r io.Reader) *payload {
	hash := sha256.New()
	hash.Write(e.head)
	return &payload{r: r, left: e.payload, covered: e.covered, trailer: e.trailer, hash: hash}
}

// The part of a payload that the file's hash covers is hashed as it is read, after the header and the manifest. Its
// last bytes are given out only if the hash is the file's: so a file that changes between two readings is noticed in
// the second. The rest is for the reader to compare with the hashes in that part.
type payload struct {
	r       io.Reader
	left    int64
	covered int64 // of it, and not hashed yet
	trailer [trailerSize]byte
	hash    hash.Hash
}

func (p *payload) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	part := p.left
	if p.covered > 0 {
		part = p.covered
	}
	n, err := p.r.Read(b[:min(int64(len(b)), part)])
	p.left -= int64(n)
	if p.covered > 0 && n > 0 {
		p.hash.Write(b[:n])
		if p.covered -= int64(n); p.covered == 0 {
			if err := p.check(); err != nil {
				return 0, err
			}
		}
	}
	switch {
	case p.left == 0:
		return n, nil
	case err == io.EOF:
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

// check compares the hash with the one in the file.
func (p *payload) check() error {
	p.hash.Write(p.trailer[:trailerSize-sha256.Size])
	if found, expected := p.hash.Sum(nil), p.trailer[trailerSize-sha256.Size:]; !bytes.Equal(found, expected) {
		return &HashError{found, expected}
	}
	return nil
}

// unread is the payload of a file of which nothing was read yet.
type unread struct {
	f       io.ReadSeeker
	payload *payload
}

func (u *unread) Read(b []byte) (int, error) {
	if u.payload == nil {
		e, err := unwrap(u.f)
		if err != nil {
			return 0, err
		}
		u.payload = e.reader(u.f)
	}
	return u.payload.Read(b)
}

// readAt fills b from offset and leaves f after it.
func readAt(f io.ReadSeeker, offset int64, b []byte) error {
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	_, err := io.ReadFull(f, b)
	return err
}

// watched calls reading, which may be nil, after each read.
type watched struct {
	io.ReadSeeker
	reading func()
}

func (w watched) Read(b []byte) (int, error) {
	n, err := w.ReadSeeker.Read(b)
	if w.reading != nil {
		w.reading()
	}
	return n, err
}

type contextReader struct {
	ctx context.Context
	r   io.Reader
}

func (c contextReader) Read(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.r.Read(b)
}

// DamagedError names a file that is no whole checkpoint, or that its disk does not give.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("checkpoint: %s cannot be used: %v", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// unusable is a *DamagedError for a file that is not there, is not whole, is another thing than a file or cannot be
// read from its disk. What else opening or reading gives says nothing about the file: it may be whole, and an older one
// is not as good.
func unusable(path string, err error) error {
	switch errno, ok := errors.AsType[syscall.Errno](err); {
	case !ok, errno == syscall.ENOENT, errno == syscall.ENXIO, errno == syscall.ELOOP, errno == syscall.EIO,
		errno == syscall.EBADMSG, errno == syscall.ENODATA:
		return &DamagedError{path, err}
	}
	return fmt.Errorf("checkpoint: %s may be whole and cannot be read: %w; make it readable or move it away", path, err)
}

// ErrNone says that there is no checkpoint, not even a damaged one.
var ErrNone = errors.New("checkpoint: there is none")
