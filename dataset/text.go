package dataset

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path"
	"path/filepath"
	"sort"

	"evenweave"
)

// Windows says how text or tokens are cut into samples. Each sample is Length tokens as input (int32 [Length]) and, as
// labels, the token that follows each of them (int32 [Length 1]).
type Windows struct {
	Length int // tokens of a sample
	Stride int // from the beginning of a sample to that of the next; 0: Length
	// Width is the number of bytes of a token, little-endian: 1 (each byte of a text is a token), 2 or 4; 0: 1.
	Width int
	// Vocabulary is the number of different tokens: one of that value or more is an error. 0: 256, for Width 1 only.
	Vocabulary int
	// Test and HeldOut are the shares of the tokens that become those parts, 0.1 for a tenth: the test part is the end,
	// held out is what stands before it.
	Test, HeldOut float64
	// Match is a pattern of file names, such as "*.txt", where the path is a directory; "": all files.
	Match string
}

// maxWindow bounds the tokens of one sample.
const maxWindow = 1 << 24

// Text opens windows of the text or the tokens of a file, or of all matching files below a directory, one after the
// other in the order of their names. They may be larger than memory. The parts share no token.
func Text(name string, w Windows) (evenweave.Sets, error) {
	var sets evenweave.Sets
	if err := w.complete(); err != nil {
		return sets, err
	}
	root, names, err := w.names(name)
	if err != nil {
		return sets, err
	}
	files, err := OpenFiles(root, names...)
	if err != nil {
		return sets, err
	}
	s := &stream{Files: files, width: int64(w.Width), starts: make([]int64, files.Len()+1)}
	for i := range files.Len() {
		if files.Size(i)%s.width != 0 {
			return sets, fmt.Errorf("%s has %d bytes: expected a multiple of the %d of a token", files.path(i),
				files.Size(i), s.width)
		}
		if s.starts[i+1] = s.starts[i] + files.Size(i)/s.width; s.starts[i+1] < 0 {
			return sets, fmt.Errorf("%s: too much data", name)
		}
	}
	all := s.starts[files.Len()]
	test := all - int64(float64(all)*w.Test)
	held := test - int64(float64(all)*w.HeldOut)
	if sets.Train, err = w.part(s, name, 0, held); err == nil && w.HeldOut > 0 {
		sets.HeldOut, err = w.part(s, name, held, test)
	}
	if err == nil && w.Test > 0 {
		sets.Test, err = w.part(s, name, test, all)
	}
	return sets, err
}

// complete replaces 0 by what it stands for, and refuses what cannot be.
func (w *Windows) complete() error {
	if w.Stride == 0 {
		w.Stride = w.Length
	}
	if w.Width == 0 {
		w.Width = 1
	}
	if w.Vocabulary == 0 && w.Width == 1 {
		w.Vocabulary = 256
	}
	switch {
	case w.Length < 1 || w.Length > maxWindow || w.Stride < 1:
		return fmt.Errorf("windows of %d tokens, %d apart: expected 1 to %d, at least 1 apart", w.Length, w.Stride,
			maxWindow)
	case w.Width != 1 && w.Width != 2 && w.Width != 4:
		return fmt.Errorf("tokens of %d bytes: expected 1, 2 or 4", w.Width)
	case w.Vocabulary < 1 || w.Vocabulary > math.MaxInt32:
		return fmt.Errorf("a vocabulary of %d tokens: say how many there are, at least 1 and at most %d", w.Vocabulary,
			math.MaxInt32)
	}
	if _, err := path.Match(w.Match, ""); err != nil {
		return fmt.Errorf("pattern %q: %w", w.Match, err)
	}
	return checkShares(w.Test, w.HeldOut)
}

func (w *Windows) names(name string) (root string, names []string, err error) {
	if name == "" {
		return "", nil, errUnnamed
	}
	info, err := os.Stat(name)
	if err != nil {
		return "", nil, err
	}
	if !info.IsDir() {
		return filepath.Dir(name), []string{filepath.Base(name)}, nil
	}
	names, err = list(name, func(file string) bool {
		fits, _ := path.Match(w.Match, path.Base(file))
		return fits || w.Match == ""
	})
	if err == nil && len(names) == 0 {
		err = fmt.Errorf("%s: no file matches %q", name, w.Match)
	}
	return name, names, err
}

// part is data of the windows that lie within tokens from (included) to to (excluded).
func (w *Windows) part(s *stream, name string, from, to int64) (evenweave.Data, error) {
	n := int64(0)
	if to-from > int64(w.Length) {
		n = (to-from-int64(w.Length)-1)/int64(w.Stride) + 1
	}
	if n < 1 || n > math.MaxInt32 {
		return nil,
			fmt.Errorf("%s: tokens %d to %d hold %d windows of %d tokens and the one after them, %d apart: expected 1 "+
				"to %d", name, from, to-1, n, w.Length, w.Stride, math.MaxInt32)
	}
	about := fmt.Sprintf("%s\nwindows %d %d %d %d", s.Digest(), w.Length, w.Stride, w.Width, w.Vocabulary)
	return New(&windows{*w, s, from, int(n), digestOf(about, fmt.Sprintf("tokens %d-%d", from, to-1))})
}

// windows is a source of samples of a stream of tokens.
type windows struct {
	Windows
	stream  *stream
	from    int64 // the first token
	samples int
	digest  string
}

func (w *windows) Len() int       { return w.samples }
func (w *windows) Digest() string { return w.digest }

// Files implements evenweave.Located.
func (w *windows) Files() []string { return w.stream.paths() }

func (w *windows) Layout() (inputs, labels []Flat) {
	return []Flat{{Type: evenweave.Int32, Shape: []int{w.Length}}},
		[]Flat{{Type: evenweave.Int32, Shape: []int{w.Length, 1}}}
}

func (w *windows) Read(i int, inputs, labels [][]byte) (float32, error) {
	at := w.from + int64(i)*int64(w.Stride)
	raw := make([]byte, (w.Length+1)*w.Width)
	if err := w.stream.read(raw, at); err != nil {
		return 0, err
	}
	for k := range w.Length + 1 {
		token := uint32(raw[k*w.Width])
		switch w.Width {
		case 2:
			token = uint32(binary.LittleEndian.Uint16(raw[2*k:]))
		case 4:
			token = binary.LittleEndian.Uint32(raw[4*k:])
		}
		if token >= uint32(w.Vocabulary) {
			file, offset := w.stream.place(at + int64(k))
			return 0, fmt.Errorf("%s: the token at byte %d is %d: expected less than %d, the size of the vocabulary",
				w.stream.path(file), offset, token, w.Vocabulary)
		}
		if k < w.Length {
			binary.LittleEndian.PutUint32(inputs[0][4*k:], token)
		}
		if k > 0 {
			binary.LittleEndian.PutUint32(labels[0][4*k-4:], token)
		}
	}
	return 1, nil
}

// stream is the tokens of files, one file after the other.
type stream struct {
	*Files
	width  int64
	starts []int64 // the first token of each file, and the number of all
}

// place finds the file that holds a token, and the byte at which it begins there.
func (s *stream) place(token int64) (file int, offset int64) {
	file = sort.Search(len(s.starts), func(i int) bool { return s.starts[i] > token }) - 1
	return file, (token - s.starts[file]) * s.width
}

// read fills p with the bytes of tokens.
func (s *stream) read(p []byte, token int64) error {
	for len(p) > 0 {
		file, offset := s.place(token)
		n := min(int64(len(p)), s.Size(file)-offset)
		if err := s.ReadAt(file, p[:n], offset); err != nil {
			return err
		}
		p, token = p[n:], token+n/s.width
	}
	return nil
}
