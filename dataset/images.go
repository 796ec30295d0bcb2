package dataset

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"image"
	"image/color"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/image/draw"

	"evenweave"
	"evenweave/dataset/picture"
)

// Pictures says what becomes of the pictures of a folder.
type Pictures struct {
	Height, Width int
	// Color: three channels, red, green and blue, instead of one of gray.
	Color bool
	// Test and HeldOut are the shares that become those parts, 0.1 for a tenth. Where there is a folder "test" that is
	// the test part, whatever Test says, and HeldOut is a share of "train".
	Test, HeldOut float64
}

// Images opens a folder of pictures (.png, .jpg, .jpeg) by class: each folder in it is a class, named in classes, in
// the order of their names. A folder with a folder "train" is divided itself: classes are below "train" and, if it is
// there, below "test". The order of the samples is that of a hash of their names, so that each part of it has
// something of every class.
//
// A picture is uint8 [Height Width channels], its label int32 [1]. What is transparent becomes white; the largest part
// in the middle that has the right proportions is scaled. The bits of that depend on the architecture of the processor.
func Images(dir string, p Pictures) (sets evenweave.Sets, classes []string, err error) {
	if most := 1 << 13; p.Height < 1 || p.Width < 1 || p.Height > most || p.Width > most {
		return sets, nil, fmt.Errorf("pictures of %d x %d: expected sides of 1 to %d", p.Height, p.Width, most)
	}
	if err := checkShares(p.Test, p.HeldOut); err != nil {
		return sets, nil, err
	}
	if dir == "" {
		return sets, nil, errUnnamed
	}
	test := ""
	if isFolder(filepath.Join(dir, "train")) {
		test = filepath.Join(dir, "test")
		dir = filepath.Join(dir, "train")
	}
	all, classes, err := openImages(dir, p, nil)
	if err != nil {
		return sets, nil, err
	}
	if !isFolder(test) {
		sets, err = shares(all, p.Test, p.HeldOut)
		return sets, classes, err
	}
	if sets, err = shares(all, 0, p.HeldOut); err == nil {
		sets.Test, _, err = openImages(test, p, classes)
	}
	return sets, classes, err
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// openImages opens a folder of classes. classes are those of the training part, nil if this is that.
func openImages(dir string, p Pictures, classes []string) (evenweave.Data, []string, error) {
	names, err := list(dir, func(name string) bool {
		return slices.Contains([]string{".png", ".jpg", ".jpeg"}, strings.ToLower(path.Ext(name)))
	})
	if err != nil {
		return nil, nil, err
	}
	s := &imageSource{Pictures: p, dir: dir, classes: make([]uint32, len(names)), order: make([]int, len(names))}
	folders, keys := make([]string, len(names)), make([][sha256.Size]byte, len(names))
	for i, name := range names {
		name = filepath.ToSlash(name)
		folder, _, within := strings.Cut(name, "/")
		if !within {
			return nil, nil, fmt.Errorf("%s: expected pictures in folders named as their classes",
				filepath.Join(dir, name))
		}
		folders[i], keys[i], s.order[i] = folder, sha256.Sum256([]byte(name)), i
	}
	if classes == nil {
		classes = slices.Compact(slices.Sorted(slices.Values(folders)))
	}
	for i, folder := range folders {
		class, ok := slices.BinarySearch(classes, folder)
		if !ok {
			return nil, nil, fmt.Errorf("%s: there is no class %q in the training part", dir, folder)
		}
		s.classes[i] = uint32(class)
	}
	slices.SortFunc(s.order, func(a, b int) int { return bytes.Compare(keys[a][:], keys[b][:]) })
	if len(names) == 0 {
		return nil, nil, fmt.Errorf("%s: no pictures: expected .png, .jpg or .jpeg in folders named as their classes",
			dir)
	}
	s.names = classes
	if s.files, err = OpenFiles(dir, names...); err != nil {
		return nil, nil, err
	}
	d, err := New(s)
	return d, classes, err
}

// imageSource is a source of pictures.
type imageSource struct {
	Pictures
	files   *Files
	dir     string
	names   []string // of the classes
	classes []uint32 // of each file
	order   []int    // the file of each sample
}

func (s *imageSource) Len() int { return s.files.Len() }

// Classes implements evenweave.Classed.
func (s *imageSource) Classes() []string { return s.names }

// Class implements evenweave.Classed.
func (s *imageSource) Class(sample int) int { return int(s.classes[s.order[sample]]) }

// Files implements evenweave.Located. The pictures are too many to name.
func (s *imageSource) Files() []string { return []string{s.dir} }

func (s *imageSource) Digest() string {
	return digestOf(s.files.Digest(), fmt.Sprintf("images %dx%dx%d", s.Height, s.Width, s.channels()))
}

func (s *imageSource) channels() int {
	if s.Color {
		return 3
	}
	return 1
}

func (s *imageSource) Layout() (inputs, labels []Flat) {
	return []Flat{{Type: evenweave.Uint8, Shape: []int{s.Height, s.Width, s.channels()}}},
		[]Flat{{Type: evenweave.Int32, Shape: []int{1}}}
}

func (s *imageSource) Read(i int, inputs, labels [][]byte) (float32, error) {
	file := s.order[i]
	if s.files.Size(file) > picture.MaxBytes {
		return 0, fmt.Errorf("%s has %d bytes: expected at most %d; scale it down", s.files.path(file),
			s.files.Size(file), picture.MaxBytes)
	}
	data := make([]byte, s.files.Size(file))
	if err := s.files.ReadAt(file, data, 0); err != nil {
		return 0, err
	}
	decoded, err := picture.Decode(context.Background(), data)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", s.files.path(file), err)
	}
	s.scale(inputs[0], decoded)
	binary.LittleEndian.PutUint32(labels[0], s.classes[file])
	return 1, nil
}

// scale writes the middle of a picture, on white, into pixels.
func (s *imageSource) scale(pixels []byte, from image.Image) {
	b := from.Bounds()
	w, h := b.Dx(), b.Dy()
	if w*s.Height > h*s.Width {
		w = max(1, h*s.Width/s.Height)
	} else {
		h = max(1, w*s.Height/s.Width)
	}
	corner := b.Min.Add(image.Pt((b.Dx()-w)/2, (b.Dy()-h)/2))
	middle := image.Rectangle{Min: corner, Max: corner.Add(image.Pt(w, h))}
	to := image.NewRGBA(image.Rect(0, 0, s.Width, s.Height))
	draw.Draw(to, to.Rect, image.White, image.Point{}, draw.Src)
	if w == s.Width && h == s.Height {
		draw.Draw(to, to.Rect, from, middle.Min, draw.Over)
	} else {
		draw.CatmullRom.Scale(to, to.Rect, from, middle, draw.Over, nil)
	}
	for k := range s.Height * s.Width {
		c := color.RGBA{to.Pix[4*k], to.Pix[4*k+1], to.Pix[4*k+2], 255}
		if s.Color {
			pixels[3*k], pixels[3*k+1], pixels[3*k+2] = c.R, c.G, c.B
		} else {
			pixels[k] = color.GrayModel.Convert(c).(color.Gray).Y
		}
	}
}
