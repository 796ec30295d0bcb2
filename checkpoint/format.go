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
	"time"

	"github.com/zeebo/xxh3"
)

// Format is the version of the file format that this package writes and reads.
const Format = 2

const (
	magic       = "EVWCKPT2"
	magicBefore = "EVWCKPT1"
	headerSize  = 16
	trailerSize = 8 + sha256.Size
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
	if _, err := m.Layout(); err != nil && len(m.Tensors) > 0 {
		return fmt.Errorf("manifest: %w", err)
	}
	return nil
}

// encode writes a whole file: header, manifest, what write produces, trailer. Since write may change the manifest, the
// hash of the file, which begins with that, is made last, of what the file gives back: a checksum on the way out says
// whether that is what was written.
func encode(ctx context.Context, f File, m *Manifest, write func(io.Writer) error, buffer []byte) error {
	head, err := m.head()
	if err != nil {
		return err
	}
	w := contextWriter{ctx, f}
	if _, err := w.Write(head); err != nil {
		return err
	}
	payload := &countingWriter{w: w, sum: xxh3.New()}
	if err := write(payload); err != nil {
		return err
	}
	whole, err := m.head()
	switch {
	case err != nil:
		return err
	case len(whole) != len(head):
		return fmt.Errorf("manifest of %d bytes, of %d after the payload: expected as many", len(head), len(whole))
	case !bytes.Equal(whole, head):
		if _, err := f.WriteAt(whole, 0); err != nil {
			return err
		}
	}
	digest, again := sha256.New(), xxh3.New()
	digest.Write(whole)
	body := contextReader{ctx, io.NewSectionReader(f, int64(len(head)), payload.n)}
	if _, err := io.CopyBuffer(io.MultiWriter(digest, again), body, buffer); err != nil {
		return err
	}
	if again.Sum64() != payload.sum.Sum64() {
		return errors.New("the file gives back other bytes than were written: the volume or this machine's memory is " +
			"damaged")
	}
	trailer := binary.LittleEndian.AppendUint64(nil, uint64(payload.n))
	digest.Write(trailer)
	_, err = w.Write(digest.Sum(trailer))
	return err
}

const hashBuffer = 128 << 10

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

type countingWriter struct {
	w   io.Writer
	n   int64
	sum *xxh3.Hasher // of what was written; three times as fast as a CRC
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	_, _ = c.sum.Write(b[:n])
	return n, err
}

// envelope is what is around a payload.
type envelope struct {
	head    []byte // header and manifest
	payload int64  // bytes
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
	if got := string(e.head[:len(magic)]); got == magicBefore {
		return nil, fmt.Errorf("it has format 1, which this program does not read (it reads format %d): evaluate "+
			"it, or go on from it, with the build that wrote it, made "+
			"before 27 November 2026", Format)
	} else if got != magic {
		return nil, fmt.Errorf("starts with %q, expected %q: not a checkpoint of this format", got, magic)
	}
	length := binary.LittleEndian.Uint64(e.head[len(magic):])
	rest := uint64(size - headerSize - trailerSize)
	if length > maxManifest || length > rest || rest-length != binary.LittleEndian.Uint64(e.trailer[:]) {
		return nil, fmt.Errorf("the lengths within do not add up to the file's %d bytes: it was cut off or overwritten",
			size)
	}
	e.payload = int64(rest - length)
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
	p = e.reader(contextReader{ctx, f})
	if p.left == 0 {
		err = p.check()
	} else {
		_, err = io.Copy(io.Discard, p)
	}
	if err != nil {
		return m, nil, err
	}
	if m, err = e.manifest(); err != nil {
		return m, nil, err
	}
	if _, err := f.Seek(int64(len(e.head)), io.SeekStart); err != nil {
		return m, nil, err
	}
	return m, e.reader(f), nil
}

// reader reads the payload from r, which is at its beginning.
func (e *envelope) reader(r io.Reader) *payload {
	hash := sha256.New()
	hash.Write(e.head)
	return &payload{r: r, left: e.payload, trailer: e.trailer, hash: hash}
}

// A payload is hashed as it is read, after the header and the manifest. Its last bytes are given out only if the hash
// is the file's: so a file that changes between two readings is noticed in the second.
type payload struct {
	r       io.Reader
	left    int64
	trailer [trailerSize]byte
	hash    hash.Hash
}

func (p *payload) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n, err := p.r.Read(b[:min(int64(len(b)), p.left)])
	p.hash.Write(b[:n])
	p.left -= int64(n)
	if p.left == 0 && n > 0 {
		return p.last(n)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func (p *payload) last(n int) (int, error) {
	if err := p.check(); err != nil {
		return 0, err
	}
	return n, nil
}

// check compares the hash of all that was read, and of the length behind it, with the one in the file.
func (p *payload) check() error {
	p.hash.Write(p.trailer[:8])
	if found, expected := p.hash.Sum(nil), p.trailer[8:]; !bytes.Equal(found, expected) {
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

type contextWriter struct {
	ctx context.Context
	w   io.Writer
}

func (c contextWriter) Write(b []byte) (int, error) {
	if err := context.Cause(c.ctx); err != nil {
		return 0, err
	}
	return c.w.Write(b)
}

// DamagedError names a file that is no whole, readable checkpoint.
type DamagedError struct {
	Path string
	Err  error
}

func (e *DamagedError) Error() string {
	return fmt.Sprintf("checkpoint: %s cannot be used: %v", e.Path, e.Err)
}

func (e *DamagedError) Unwrap() error { return e.Err }

// ErrNone says that there is no checkpoint, not even a damaged one.
var ErrNone = errors.New("checkpoint: there is none")
