package dataset

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"evenweave"
	"evenweave/internal/regular"
)

const (
	maxUnpacked = 1 << 30 // bytes that a packed file may unpack to: MNIST has 47 MB, the largest part of EMNIST 547 MB
	maxIDXAxes  = 8
)

// IDX opens a set of labelled images as MNIST, Fashion-MNIST, KMNIST and EMNIST have them: four IDX files of unsigned
// bytes in one directory, plain or packed by gzip:
//
//	[NAME-]train-images-idx3-ubyte    [NAME-]t10k-images-idx3-ubyte
//	[NAME-]train-labels-idx1-ubyte    [NAME-]t10k-labels-idx1-ubyte
//
// "test" may stand for "t10k", a dot for the hyphen before "idx". A set without a test part has no Sets.Test. An image
// is uint8 of the shape that its file has, [28 28] mostly, a label int32 [1]. classes is one more than the largest
// label of the training part, at most 256. Plain files may be larger than memory, packed ones are unpacked into it.
func IDX(dir string) (sets evenweave.Sets, classes int, err error) {
	found, err := findIDX(dir)
	if err != nil {
		return sets, 0, err
	}
	train, err := openIDX(dir, found["train images"], found["train labels"])
	if err != nil {
		return sets, 0, err
	}
	if sets.Train, err = New(train); err != nil || found["test images"] == "" && found["test labels"] == "" {
		return sets, train.classes, err
	}
	test, err := openIDX(dir, found["test images"], found["test labels"])
	if err != nil {
		return sets, 0, err
	}
	if !slices.Equal(test.shape, train.shape) || test.classes > train.classes {
		return sets, 0, fmt.Errorf("%s: the test part has images of %v and labels to %d, the training part %v and %d",
			dir, test.shape, test.classes-1, train.shape, train.classes-1)
	}
	test.classes = train.classes
	sets.Test, err = New(test)
	return sets, train.classes, err
}

var idxName = regexp.MustCompile(`^(.*[-_.])?(train|t10k|test)-(images|labels)[-.]idx[1-8]-ubyte(\.gz)?$`)

// findIDX finds the files of a set by their names: "train images" and its like.
func findIDX(dir string) (map[string]string, error) {
	if dir == "" {
		return nil, errUnnamed
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	found := map[string]string{}
	for _, e := range entries {
		part := idxName.FindStringSubmatch(e.Name())
		if part == nil {
			continue
		}
		what := strings.Replace(part[2], "t10k", "test", 1) + " " + part[3]
		if other := found[what]; other != "" && other+".gz" != e.Name() {
			return nil, fmt.Errorf("%s holds %s and %s: expected one set, move the other elsewhere", dir, other,
				e.Name())
		} else if other == "" {
			found[what] = e.Name()
		}
	}
	for _, what := range []string{"train images", "train labels"} {
		if found[what] == "" {
			return nil, fmt.Errorf("%s: no file of %s: expected a name such as train-images-idx3-ubyte or "+
				"train-labels-idx1-ubyte.gz", dir, what)
		}
	}
	if (found["test images"] == "") != (found["test labels"] == "") {
		return nil, fmt.Errorf("%s has only one of images and labels of the test part: %q, %q", dir,
			found["test images"], found["test labels"])
	}
	return found, nil
}

// idxSource is a source of labelled images.
type idxSource struct {
	files   *Files
	images  func(p []byte, offset int64) error
	labels  []byte
	shape   []int // of an image
	size    int   // bytes of an image
	classes int
}

func openIDX(dir, images, labels string) (*idxSource, error) {
	for _, name := range []string{images, labels} {
		if err := looksLikeIDX(filepath.Join(dir, name)); err != nil {
			return nil, err
		}
	}
	files, err := OpenFiles(dir, images, labels)
	if err != nil {
		return nil, err
	}
	s := &idxSource{files: files}
	// Labels first: they are small, so a wrong file shows at once.
	axes, read, err := readIDX(files, 1)
	if err == nil && len(axes) != 1 {
		err = fmt.Errorf("%s has %d axes: labels have one", files.path(1), len(axes))
	}
	if err != nil {
		return nil, err
	}
	s.labels = make([]byte, axes[0])
	if err := read(s.labels, 0); err != nil {
		return nil, err
	}
	s.classes = int(slices.Max(s.labels)) + 1
	if axes, s.images, err = readIDX(files, 0); err != nil {
		return nil, err
	}
	if axes[0] != len(s.labels) {
		return nil, fmt.Errorf("%s has %d samples, %s %d: expected the same number", files.path(0), axes[0],
			files.path(1), len(s.labels))
	}
	s.shape, s.size = axes[1:], product(axes[1:])
	return s, nil
}

func product(axes []int) int {
	n := 1
	for _, a := range axes {
		n *= a
	}
	return n
}

// readIDX returns the axes of an IDX file and what reads its payload. A packed file is unpacked.
func readIDX(files *Files, i int) (axes []int, read func(p []byte, offset int64) error, err error) {
	path := files.path(i)
	in := bufio.NewReaderSize(files.reader(i), 1<<16)
	if filepath.Ext(path) == ".gz" {
		axes, payload, err := unpackIDX(in)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", path, err)
		}
		return axes, func(p []byte, offset int64) error { copy(p, payload[offset:]); return nil }, nil
	}
	axes, header, err := plainIDX(path, in, files.Size(i))
	if err != nil {
		return nil, nil, err
	}
	return axes, func(p []byte, offset int64) error { return files.ReadAt(i, p, header+offset) }, nil
}

// plainIDX returns the axes of a file that is not packed, and where its payload begins.
func plainIDX(path string, r io.Reader, size int64) (axes []int, header int64, err error) {
	if axes, err = idxHeader(r); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", path, err)
	}
	header = int64(4 + 4*len(axes))
	if want := header + int64(product(axes)); size != want {
		return nil, 0, fmt.Errorf("%s has %d bytes: expected %d for its axes %v", path, size, want, axes)
	}
	return axes, header, nil
}

// looksLikeIDX refuses by its first bytes and its size what is no IDX file, before all of it is hashed.
func looksLikeIDX(path string) error {
	f, size, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if filepath.Ext(path) != ".gz" {
		_, _, err := plainIDX(path, f, size)
		return err
	}
	if most := int64(maxUnpacked + maxUnpacked>>8); size > most { // packing adds no more
		return fmt.Errorf("%s has %d bytes: expected at most %d", path, size, most)
	}
	if _, err := gzip.NewReader(f); err != nil {
		return fmt.Errorf("%s: damaged gzip file: %w", path, err)
	}
	return nil
}

// idxHeader reads two zero bytes, the type of an element (8: unsigned byte), the number of axes, and the axes, each of
// four bytes, big-endian. Their product is below 2^47.
func idxHeader(r io.Reader) ([]int, error) {
	var head [4 + 4*maxIDXAxes]byte
	if _, err := io.ReadFull(r, head[:4]); err != nil {
		return nil, fmt.Errorf("not an IDX file: %w", err)
	}
	count := int(head[3])
	if head[0] != 0 || head[1] != 0 || head[2] != 8 || count < 1 || count > maxIDXAxes {
		return nil, fmt.Errorf("it begins with %x: expected 0000080N, an IDX file of unsigned bytes with 1 to %d axes",
			head[:4], maxIDXAxes)
	}
	if _, err := io.ReadFull(r, head[4:4+4*count]); err != nil {
		return nil, fmt.Errorf("its header is cut off: %w", err)
	}
	axes, n := make([]int, count), int64(1)
	for i := range axes {
		a := int64(binary.BigEndian.Uint32(head[4+4*i:]))
		if a < 1 || a > math.MaxInt32 || a > 1<<47/n {
			return nil, fmt.Errorf("axis %d has a length of %d: expected at least 1, and fewer elements in all", i, a)
		}
		axes[i], n = int(a), n*a
	}
	return axes, nil
}

func unpackIDX(packed io.Reader) (axes []int, payload []byte, err error) {
	z, err := gzip.NewReader(packed)
	if err != nil {
		return nil, nil, fmt.Errorf("damaged gzip file: %w", err)
	}
	return wholeIDX(z, 0, maxUnpacked)
}

// wholeIDX reads an IDX file to its end, where its length and a packed one's checksum must be right. It takes memory
// for what is there, not for what the header announces: size is that of the file, 0 where it is not known.
func wholeIDX(r io.Reader, size, most int64) (axes []int, payload []byte, err error) {
	if axes, err = idxHeader(r); err != nil {
		return nil, nil, err
	}
	n := int64(product(axes))
	if n > most {
		return nil, nil, fmt.Errorf("it announces %d bytes: expected at most %d; unpack a larger one with gunzip", n,
			most)
	}
	var b bytes.Buffer
	b.Grow(int(min(n, size)) + bytes.MinRead)
	if _, err := b.ReadFrom(io.LimitReader(r, n+1)); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", map[bool]string{true: "damaged gzip file",
			false: "reading it"}[size == 0], err)
	}
	if int64(b.Len()) != n {
		return nil, nil, fmt.Errorf("it has another length: expected %d bytes for its axes %v", n, axes)
	}
	return axes, b.Bytes(), nil
}

// IDXFile is an IDX file of unsigned bytes, whole.
type IDXFile struct {
	Axes    []int
	Payload []byte
	SHA256  string // of the unpacked file with its header, in hexadecimal
}

// ReadIDX reads an IDX file of unsigned bytes whose payload has at most so many; one whose name ends in .gz is
// unpacked. IDX opens a whole set of them, and reads it as it is needed.
func ReadIDX(path string, most int64) (*IDXFile, error) {
	in, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return nil, err
	}
	var r io.Reader = bufio.NewReaderSize(in, 1<<16)
	size := info.Size()
	if filepath.Ext(path) == ".gz" {
		if r, err = gzip.NewReader(r); err != nil {
			return nil, fmt.Errorf("%s: damaged gzip file: %w", path, err)
		}
		size = 0
	}
	sum := sha256.New()
	axes, payload, err := wholeIDX(io.TeeReader(r, sum), size, most)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return &IDXFile{axes, payload, hex.EncodeToString(sum.Sum(nil))}, nil
}

func (s *idxSource) Len() int       { return len(s.labels) }
func (s *idxSource) Digest() string { return s.files.Digest() }

// Classes implements evenweave.Classed.
func (s *idxSource) Classes() []string {
	names := make([]string, s.classes)
	for i := range names {
		names[i] = strconv.Itoa(i)
	}
	return names
}

// Class implements evenweave.Classed.
func (s *idxSource) Class(sample int) int { return int(s.labels[sample]) }

// Files implements evenweave.Located.
func (s *idxSource) Files() []string { return s.files.paths() }

func (s *idxSource) Layout() (inputs, labels []Flat) {
	return []Flat{{Type: evenweave.Uint8, Shape: s.shape}}, []Flat{{Type: evenweave.Int32, Shape: []int{1}}}
}

func (s *idxSource) Read(i int, inputs, labels [][]byte) (float32, error) {
	binary.LittleEndian.PutUint32(labels[0], uint32(s.labels[i]))
	return 1, s.images(inputs[0], int64(i)*int64(s.size))
}
