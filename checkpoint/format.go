package checkpoint

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"
)

// Format is the version of the file format that this package writes and reads.
const Format = 1

const (
	magic       = "EVWCKPT1"
	headerSize  = 16
	trailerSize = 8 + sha256.Size
	maxManifest = 16 << 20 // bytes
)

// Manifest says what a checkpoint is.
type Manifest struct {
	Format        int             `json:"format"` // set by Save
	Job           string          `json:"job"`    // UUID
	Spec          json.RawMessage `json:"spec,omitempty"`
	Numerics      string          `json:"numerics,omitempty"`
	Step          int64           `json:"step"` // committed updates
	Epoch         int64           `json:"epoch"`
	Term          int64           `json:"term"`           // of the leader that saved it
	Fingerprint   string          `json:"fingerprint"`    // of the state
	WeightsSHA256 string          `json:"weights_sha256"` // of the parameters
	Tensors       []Tensor        `json:"tensors"`        // what the values of the state are
	Created       time.Time       `json:"created"`
	Complete      bool            `json:"complete"` // the job's last step
}

// Tensor names a part of the state's values: row-major float32 from element Offset.
type Tensor struct {
	Name   string `json:"name"`
	Shape  []int  `json:"shape"`
	Offset int    `json:"offset"` // in elements
}

// Size returns the number of elements.
func (t Tensor) Size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// encode writes a whole file: header, manifest, what write produces, trailer.
func encode(w io.Writer, m Manifest, write func(io.Writer) error) error {
	manifest, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("manifest: %w", err)
	}
	if len(manifest) > maxManifest {
		return fmt.Errorf("manifest of %d bytes: at most %d", len(manifest), maxManifest)
	}
	hash := sha256.New()
	body := io.MultiWriter(w, hash)
	header := binary.LittleEndian.AppendUint64([]byte(magic), uint64(len(manifest)))
	if _, err := body.Write(append(header, manifest...)); err != nil {
		return err
	}
	payload := &countingWriter{w: body}
	if err := write(payload); err != nil {
		return err
	}
	if _, err := body.Write(binary.LittleEndian.AppendUint64(nil, uint64(payload.n))); err != nil {
		return err
	}
	_, err = w.Write(hash.Sum(nil))
	return err
}

type countingWriter struct {
	w io.Writer
	n int64
}

func (c *countingWriter) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.n += int64(n)
	return n, err
}

// verify reads a whole file, checks it, and leaves f at its payload.
func verify(ctx context.Context, f io.ReadSeeker) (m Manifest, payload int64, err error) {
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return m, 0, err
	}
	if size < headerSize+trailerSize {
		return m, 0, fmt.Errorf("%d bytes are too few for a checkpoint: it was cut off", size)
	}
	var header [headerSize]byte
	if err := readAt(f, 0, header[:]); err != nil {
		return m, 0, err
	}
	var trailer [trailerSize]byte
	if err := readAt(f, size-trailerSize, trailer[:]); err != nil {
		return m, 0, err
	}
	if got := string(header[:len(magic)]); got != magic {
		return m, 0, fmt.Errorf("starts with %q, expected %q: not a checkpoint of this format", got, magic)
	}
	length := binary.LittleEndian.Uint64(header[len(magic):])
	rest := uint64(size - headerSize - trailerSize)
	if length > maxManifest || length > rest || rest-length != binary.LittleEndian.Uint64(trailer[:]) {
		return m, 0, fmt.Errorf("the lengths within do not add up to the file's %d bytes: it was cut off or overwritten", size)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return m, 0, err
	}
	hash := sha256.New()
	if _, err := io.CopyN(hash, contextReader{ctx, f}, size-sha256.Size); err != nil {
		return m, 0, err
	}
	if found, expected := hash.Sum(nil), trailer[8:]; !bytes.Equal(found, expected) {
		return m, 0, fmt.Errorf("SHA-256 is %x, expected %x", found, expected)
	}
	manifest := make([]byte, length)
	if err := readAt(f, headerSize, manifest); err != nil {
		return m, 0, err
	}
	if err := json.Unmarshal(manifest, &m); err != nil {
		return m, 0, fmt.Errorf("manifest: %w", err)
	}
	if m.Format != Format {
		return m, 0, fmt.Errorf("format %d: this program reads format %d", m.Format, Format)
	}
	return m, int64(rest - length), nil
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
