package fashionmnist

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"evenweave/dataset"
)

// remedy ends every message about a bad or missing file.
const remedy = "run `make setup` to fetch the data, or point to a directory that holds it"

// file is what one IDX file must be.
type file struct {
	name    string // without .gz
	dims    []int  // as the IDX header must give them
	maxByte byte   // highest value allowed in the payload
	sha256  string // of the uncompressed file, header included
}

func images(name string, n int, sum string) file {
	return file{name, []int{n, Side, Side}, 255, sum}
}

func labels(name string, n int, sum string) file {
	return file{name, []int{n}, NumClasses - 1, sum}
}

func files() (trainImages, trainLabels, testImages, testLabels file) {
	return images("train-images-idx3-ubyte", TrainSize,
			"c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"),
		labels("train-labels-idx1-ubyte", TrainSize,
			"bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"),
		images("t10k-images-idx3-ubyte", TestSize, "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"),
		labels("t10k-labels-idx1-ubyte", TestSize, "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34")
}

// Find returns the directory to load from: the explicit one (a flag's or variable's value), or else the first that
// holds the training images: ./.evenweave/data, ../.evenweave/data beside the executable,
// /usr/local/share/evenweave/data, /usr/share/datasets/fashion-mnist.
func Find(explicit string) (string, error) {
	if explicit != "" {
		return explicit, nil
	}
	dirs := []string{filepath.Join(".evenweave", "data")}
	if exe, err := os.Executable(); err == nil {
		dirs = append(dirs, filepath.Join(filepath.Dir(exe), "..", ".evenweave", "data"))
	}
	dirs = append(dirs, "/usr/local/share/evenweave/data", "/usr/share/datasets/fashion-mnist")
	first, _, _, _ := files()
	for _, dir := range dirs {
		if holds(dir, first) {
			return dir, nil
		}
	}
	return "", fmt.Errorf("no Fashion-MNIST data: %s not found in %s: %s", first.name, strings.Join(dirs, ", "), remedy)
}

// holds reports whether a file is there, packed or not.
func holds(dir string, f file) bool {
	for _, suffix := range []string{"", ".gz"} {
		if _, err := os.Stat(filepath.Join(dir, f.name+suffix)); err == nil {
			return true
		}
	}
	return false
}

// Load reads and verifies the four files in dir, or in dir/FashionMNIST/raw, which is where torchvision puts them.
func Load(dir string) (train, test *Dataset, err error) {
	trainImages, trainLabels, testImages, testLabels := files()
	dir = below(dir)
	if train, err = loadPair(dir, trainImages, trainLabels); err != nil {
		return nil, nil, err
	}
	if test, err = loadPair(dir, testImages, testLabels); err != nil {
		return nil, nil, err
	}
	return train, test, nil
}

// below is dir, or the folder in it where torchvision puts the files.
func below(dir string) string {
	first, _, _, _ := files()
	if raw := filepath.Join(dir, "FashionMNIST", "raw"); !holds(dir, first) && holds(raw, first) {
		return raw
	}
	return dir
}

// Files are the paths that Load reads: images and labels to train on, then those to test on.
func Files(dir string) (paths []string) {
	dir = below(dir)
	a, b, c, d := files()
	for _, f := range []file{a, b, c, d} {
		path := filepath.Join(dir, f.name)
		if _, err := os.Stat(path); err != nil {
			path += ".gz"
		}
		paths = append(paths, path)
	}
	return paths
}

// Holds says whether a directory has at least one of the four files as it must be: then the others belong to it, and
// one that differs is damaged.
func Holds(dir string) bool {
	trainImages, trainLabels, testImages, testLabels := files()
	for _, f := range []file{trainLabels, testLabels, testImages, trainImages} {
		if _, err := f.read(below(dir)); err == nil {
			return true
		}
	}
	return false
}

func loadPair(dir string, images, labels file) (*Dataset, error) {
	// Labels first: they are small, so a wrong directory shows at once.
	l, err := labels.read(dir)
	if err != nil {
		return nil, err
	}
	i, err := images.read(dir)
	if err != nil {
		return nil, err
	}
	sum := sha256.Sum256([]byte(images.sha256 + labels.sha256))
	return &Dataset{Images: i, Labels: l, Hash: hex.EncodeToString(sum[:]), Number: NumClasses}, nil
}

// read returns the verified payload of f, from dir/name or dir/name.gz.
func (f file) read(dir string) ([]byte, error) {
	path := filepath.Join(dir, f.name)
	_, missing := os.Stat(path)
	_, unpacked := os.Stat(path + ".gz")
	if errors.Is(missing, fs.ErrNotExist) {
		if errors.Is(unpacked, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s: neither it nor %s.gz is there%s: %s", path, f.name, f.similar(dir), remedy)
		}
		path += ".gz"
	}
	found, err := dataset.ReadIDX(path, int64(f.size()))
	if err == nil {
		if err = f.check(found); err != nil {
			err = fmt.Errorf("%s: %w", path, err)
		}
	}
	switch {
	case err == nil:
		return found.Payload, nil
	case missing == nil && unpacked == nil:
		return nil, fmt.Errorf("%w: remove it, and %s.gz beside it is read instead; or %s", err, f.name, remedy)
	}
	return nil, fmt.Errorf("%w: %s", err, remedy)
}

// similar names a file with another form of the name: some programs unpack train-images.idx3-ubyte.
func (f file) similar(dir string) string {
	dotted := strings.Replace(f.name, "-idx", ".idx", 1)
	for _, name := range []string{dotted, dotted + ".gz"} {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			return fmt.Sprintf(", but %s is: rename it, with a hyphen in place of the dot", name)
		}
	}
	return ""
}

// size is the length of the payload in bytes.
func (f file) size() int {
	n := 1
	for _, d := range f.dims {
		n *= d
	}
	return n
}

func (f file) check(found *dataset.IDXFile) error {
	if !slices.Equal(found.Axes, f.dims) {
		return fmt.Errorf("it has the axes %v, expected %v", found.Axes, f.dims)
	}
	if f.maxByte < 255 {
		for i, b := range found.Payload {
			if b > f.maxByte {
				return fmt.Errorf("sample %d has label %d, expected 0 to %d", i, b, f.maxByte)
			}
		}
	}
	if found.SHA256 != f.sha256 {
		return fmt.Errorf("contents differ: SHA-256 (uncompressed) %s, expected %s", found.SHA256, f.sha256)
	}
	return nil
}
