package dataset

import (
	"bufio"
	"crypto/sha256"
	"encoding/binary"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"evenweave"
)

const (
	maxCSV     = 1 << 30 // bytes of a file: its cells are kept in memory, four bytes each
	maxColumns = 1 << 12
	maxWords   = 1 << 20 // different ones of a column
)

// Table says which columns of a CSV file are read, as what, and which rows are set aside. A task's options may embed
// it, which makes flags of what its users choose.
type Table struct {
	// Numbers are columns of finite numbers: together one input, float32 [len(Numbers)].
	Numbers Columns `flag:"numbers" help:"columns of numbers, separated by commas"`
	// Words are columns of categories: together one input, int32 [len(Words)]. A word is its place in the column's
	// vocabulary, which is that of the training part, sorted; 0 is for words that are not in it.
	Words Columns `flag:"words" help:"columns of words, separated by commas"`
	// Label is the column to predict: a number, float32 [1], or, with Classes, a word, int32 [1]: its place in the
	// sorted vocabulary, from 0.
	Label   string `flag:"label" help:"column to predict"`
	Classes bool   `spec:"-"`
	// Key is the column that chooses a row's part, by a hash of what it holds: rows of one key stay together. "": all
	// cells together, so equal rows stay together.
	Key string `flag:"key" help:"column whose equal cells stay in one part, training or test (default: all)"`
	// Vocabulary is the most places that each of Words may have, the one for other words too: a model has rows for as
	// many. 0: any number.
	Vocabulary int `flag:"vocabulary" help:"most different words of a column, with one place for those not trained on"`
	// Test and HeldOut are the shares of the keys whose rows become those parts, 0.1 for a tenth.
	Test    float64 `spec:"-"`
	HeldOut float64 `spec:"-"`
	// Comma separates the cells. 0: a comma.
	Comma rune `spec:"-"`
}

// Columns are names of columns, as text separated by commas.
type Columns []string

// MarshalText implements encoding.TextMarshaler.
func (c Columns) MarshalText() ([]byte, error) {
	for _, name := range c {
		if strings.Contains(name, ",") || strings.TrimSpace(name) != name || name == "" {
			return nil, fmt.Errorf("column %q: a list separated by commas cannot hold it", name)
		}
	}
	return []byte(strings.Join(c, ",")), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Columns) UnmarshalText(text []byte) error {
	*c = nil
	for name := range strings.SplitSeq(string(text), ",") {
		if name = strings.TrimSpace(name); name != "" {
			*c = append(*c, name)
		}
	}
	return nil
}

// CSV opens a table of samples: a file with a header, quoted as RFC 4180 says, or a directory with train.csv and
// test.csv, which then are the parts. The inputs are Numbers, if there are any, then Words; words gives the vocabulary
// of each column of words, and of the label with Classes: the place of a word is its number. A cell that is empty or no
// number, and a class that the training part lacks, are errors that name file, line and column.
func CSV(path string, t Table) (sets evenweave.Sets, words map[string][]string, err error) {
	if err := t.Validate(); err != nil {
		return sets, nil, err
	}
	if path == "" {
		return sets, nil, errUnnamed
	}
	dir, names := filepath.Dir(path), []string{filepath.Base(path)}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		dir, names = path, []string{"train.csv", "test.csv"}
		if t.Test > 0 {
			return sets, nil, fmt.Errorf("%s is a directory, whose test part is test.csv: expected a share Test of 0",
				path)
		}
	}
	files, err := OpenFiles(dir, names...)
	if err != nil {
		return sets, nil, err
	}
	r := &rows{Table: t, files: files, seen: make([]map[string]int32, len(t.wordColumns()))}
	for i := range files.Len() {
		if err := r.read(i); err != nil {
			return sets, nil, err
		}
	}
	return r.sets()
}

// wordColumns are the columns that have a vocabulary.
func (t *Table) wordColumns() []string {
	if t.Classes {
		return append(slices.Clone(t.Words), t.Label)
	}
	return t.Words
}

// numberColumns are the columns that are read as numbers.
func (t *Table) numberColumns() []string {
	if t.Classes {
		return t.Numbers
	}
	return append(slices.Clone(t.Numbers), t.Label)
}

// Validate implements evenweave.Validator, for options that embed a Table.
func (t *Table) Validate() error {
	columns := slices.Concat(t.Numbers, t.Words, Columns{t.Label})
	slices.Sort(columns)
	switch {
	case len(columns) < 2 || len(columns) > maxColumns || t.Label == "":
		return fmt.Errorf("a table of %d columns with label %q: expected 1 to %d of Numbers and Words, and a Label",
			len(columns)-1, t.Label, maxColumns)
	case len(slices.Compact(columns)) < len(columns):
		return fmt.Errorf("the columns %q: expected each once", columns)
	}
	if t.Vocabulary < 0 {
		return fmt.Errorf("a vocabulary of at most %d words: expected 0 or more", t.Vocabulary)
	}
	return checkShares(t.Test, t.HeldOut)
}

// chosen names all that decides which content the data have, for their digest.
func (t *Table) chosen() string {
	return fmt.Sprintf("numbers %q, words %q, label %q, classes %v, key %q, test %v, held out %v, comma %q",
		[]string(t.Numbers), []string(t.Words), t.Label, t.Classes, t.Key, t.Test, t.HeldOut, t.Comma)
}

// The parts of a table.
const (
	trainPart = iota
	testPart
	heldOutPart
)

// rows are the cells of a table that are used.
type rows struct {
	Table
	files   *Files
	seen    []map[string]int32 // the words of each of wordColumns, by their order of appearance
	parts   []uint8            // of each row
	places  []place            // of each row
	numbers []float32          // row by row
	words   []int32
}

// place is where a row begins.
type place struct{ file, line int32 }

// read appends the rows of a file.
func (r *rows) read(file int) error {
	path := r.files.path(file)
	if r.files.Size(file) > maxCSV {
		return fmt.Errorf("%s has %d bytes: expected at most %d", path, r.files.Size(file), maxCSV)
	}
	in := csv.NewReader(bufio.NewReaderSize(r.files.reader(file), 1<<16))
	in.ReuseRecord = true
	if r.Comma != 0 {
		in.Comma = r.Comma
	}
	header, err := in.Read()
	if err != nil {
		return fmt.Errorf("%s: its header cannot be read: %w", path, err)
	}
	header = slices.Clone(header)
	header[0] = strings.TrimPrefix(header[0], "\ufeff")
	numbers, err1 := columnsOf(header, r.numberColumns())
	words, err2 := columnsOf(header, r.wordColumns())
	key, err3 := columnsOf(header, []string{r.Key})
	if r.Key == "" {
		key, err3 = nil, nil
	}
	if err := errors.Join(err1, err2, err3); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	for {
		cells, err := in.Read()
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = r.add(cells, numbers, words)
		}
		if bad := (*cellError)(nil); errors.As(err, &bad) {
			line, _ := in.FieldPos(bad.column)
			return fmt.Errorf("%s: line %d, column %q: %s", path, line, header[bad.column], bad.what)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", path, err) // a csv.ParseError names the line
		}
		line, _ := in.FieldPos(0)
		r.places = append(r.places, place{int32(file), int32(min(line, math.MaxInt32))})
		r.parts = append(r.parts, r.part(file, cells, key))
	}
}

// columnsOf finds columns in a header.
func columnsOf(header, names []string) (at []int, err error) {
	for _, name := range names {
		i := slices.Index(header, name)
		if i < 0 {
			return nil, fmt.Errorf("there is no column %q: the header has %.400q", name, header)
		}
		if slices.Contains(header[i+1:], name) {
			return nil, fmt.Errorf("the header names column %q twice", name)
		}
		at = append(at, i)
	}
	return at, nil
}

// cellError is what is wrong with the cell of a column.
type cellError struct {
	column int
	what   string
}

func (e *cellError) Error() string { return e.what }

func (r *rows) add(cells []string, numbers, words []int) error {
	for _, c := range slices.Concat(numbers, words) {
		if strings.TrimSpace(cells[c]) == "" {
			return &cellError{c, "the cell is empty: fill it in, or leave the row out"}
		}
	}
	for _, c := range numbers {
		x, err := strconv.ParseFloat(strings.TrimSpace(cells[c]), 32)
		if err != nil || math.IsInf(x, 0) || math.IsNaN(x) {
			return &cellError{c, fmt.Sprintf("%.40q is no finite number of 32 bits", cells[c])}
		}
		r.numbers = append(r.numbers, float32(x))
	}
	for i, c := range words {
		if r.seen[i] == nil {
			r.seen[i] = map[string]int32{}
		}
		word := strings.TrimSpace(cells[c])
		id, known := r.seen[i][word]
		if !known {
			if id = int32(len(r.seen[i])); id == maxWords {
				return &cellError{c, fmt.Sprintf("over %d different words: is it a column of numbers?", maxWords)}
			}
			r.seen[i][strings.Clone(word)] = id
		}
		r.words = append(r.words, id)
	}
	return nil
}

// part chooses the part of a row.
func (r *rows) part(file int, cells []string, key []int) uint8 {
	if file > 0 {
		return testPart
	}
	h := sha256.New()
	for i, cell := range cells {
		if key == nil || i == key[0] {
			fmt.Fprintf(h, "%d %s\n", len(cell), cell)
		}
	}
	at := float64(binary.BigEndian.Uint64(h.Sum(nil))) / (1 << 64)
	switch {
	case at < r.Test:
		return testPart
	case at < r.Test+r.HeldOut:
		return heldOutPart
	}
	return trainPart
}

// sets divides the rows into their parts.
func (r *rows) sets() (sets evenweave.Sets, words map[string][]string, err error) {
	numbers := [][]int32{} // of the words of each column, by appearance
	words = map[string][]string{}
	for i, column := range r.wordColumns() {
		words[column] = r.vocabulary(i)
		numbers = append(numbers, make([]int32, len(r.seen[i])))
		for word, id := range r.seen[i] {
			at, known := slices.BinarySearch(words[column], word)
			if numbers[i][id] = int32(at); !known {
				numbers[i][id] = -1
			}
		}
	}
	for i, column := range r.Words { // 0 is for unknown words
		words[column] = slices.Insert(words[column], 0, "")
		if n := len(words[column]); r.Vocabulary > 0 && n > r.Vocabulary {
			return sets, nil, fmt.Errorf("%s: column %q needs a vocabulary of %d, one place of it for words that are "+
				"not trained on: it is %d", r.files.path(0), column, n, r.Vocabulary)
		}
		for id := range numbers[i] {
			numbers[i][id]++
		}
	}
	if err := r.number(numbers); err != nil {
		return sets, nil, err
	}
	wanted := map[uint8]bool{trainPart: true, testPart: r.files.Len() > 1 || r.Test > 0, heldOutPart: r.HeldOut > 0}
	for part, to := range map[uint8]*evenweave.Data{
		trainPart: &sets.Train, testPart: &sets.Test, heldOutPart: &sets.HeldOut,
	} {
		if wanted[part] {
			*to, err = r.data(part, words[r.Label])
		}
		if err != nil {
			return sets, nil, err
		}
	}
	return sets, words, nil
}

// vocabulary is the sorted words of a column in the training part.
func (r *rows) vocabulary(column int) []string {
	used := map[int32]bool{}
	for row, part := range r.parts {
		if part == trainPart {
			used[r.words[row*len(r.seen)+column]] = true
		}
	}
	var all []string
	for word, id := range r.seen[column] {
		if used[id] {
			all = append(all, word)
		}
	}
	slices.Sort(all)
	return all
}

// number replaces words by their numbers.
func (r *rows) number(numbers [][]int32) error {
	for i, word := range r.words {
		row, column := i/len(r.seen), i%len(r.seen)
		if r.words[i] = numbers[column][word]; r.words[i] < 0 {
			at := r.places[row]
			return fmt.Errorf("%s: line %d, column %q: the training part has no such class",
				r.files.path(int(at.file)), at.line, r.Label)
		}
	}
	return nil
}

// data are the rows of a part; names are those of the classes, if Label is one.
func (r *rows) data(part uint8, names []string) (evenweave.Data, error) {
	var numbers, labels []float32
	var words, classes []int32
	n := 0
	for row, p := range r.parts {
		if p != part {
			continue
		}
		n++
		x, w := len(r.numberColumns()), len(r.seen)
		numbers = append(numbers, r.numbers[row*x:][:len(r.Numbers)]...)
		labels = append(labels, r.numbers[row*x:][len(r.Numbers):x]...)
		words = append(words, r.words[row*w:][:len(r.Words)]...)
		classes = append(classes, r.words[row*w:][len(r.Words):w]...)
	}
	name := []string{"training", "test", "held-out"}[part]
	if n == 0 {
		return nil, fmt.Errorf("%s has no row of the %s part: it has %d rows in all", r.files.path(0), name,
			len(r.parts))
	}
	m := &memory{samples: n, digest: digestOf(r.files.Digest()+" "+r.chosen(), "csv "+name)}
	if len(r.Numbers) > 0 {
		m.inputs = append(m.inputs, Of(numbers, len(r.Numbers)))
	}
	if len(r.Words) > 0 {
		m.inputs = append(m.inputs, Of(words, len(r.Words)))
	}
	m.labels = []Flat{Of(labels, 1)}
	if r.Classes {
		m.labels = []Flat{Of(classes, 1)}
	}
	t := &table{memory: m, files: r.files}
	if r.Classes {
		t.names, t.class = names, classes
	}
	return New(t)
}

// table is the source of a part: its rows are in memory.
type table struct {
	*memory
	files *Files
	names []string // of the classes
	class []int32  // of each row
}

// Classes implements evenweave.Classed.
func (t *table) Classes() []string { return t.names }

// Class implements evenweave.Classed.
func (t *table) Class(sample int) int {
	if t.class == nil {
		return -1
	}
	return int(t.class[sample])
}

// Files implements evenweave.Located.
func (t *table) Files() []string { return t.files.paths() }
