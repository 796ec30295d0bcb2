package dataset

import (
	"encoding/binary"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"evenweave"
)

const people = "\ufeffcity,age,\"net, income\",name,buys\n" +
	"Rome,31,2.5,a,yes\n" +
	"\"New\nYork\",40.5,-1e3,b,no\n" +
	" Oslo ,7,0,c,yes\n" +
	"Rome,99,\"1\",d,no\n"

func wanted() Table {
	return Table{Numbers: []string{"net, income", "age"}, Words: []string{"city"}, Label: "buys", Classes: true}
}

// rowsOf loads all rows of a part: their inputs and labels as numbers.
func rowsOf(t *testing.T, d evenweave.Data) (all [][]float32) {
	t.Helper()
	b := &evenweave.Batch{}
	for i := range d.Len() {
		b.Samples = append(b.Samples, int32(i))
	}
	if err := d.Load(b); err != nil {
		t.Fatal(err)
	}
	c := b.Content.(*Content)
	for i := range d.Len() {
		var row []float32
		for _, f := range append(c.Inputs, c.Labels...) {
			for s := f.Sample(i); len(s) > 0; s = s[4:] {
				word := binary.LittleEndian.Uint32(s)
				if f.Type == evenweave.Float32 {
					row = append(row, math.Float32frombits(word))
				} else {
					row = append(row, float32(word))
				}
			}
		}
		all = append(all, row)
	}
	return all
}

// Columns come by name in the order that was asked for, words by their place in the vocabulary.
func TestColumnsOfATable(t *testing.T) {
	root := put(t, map[string][]byte{"people.csv": []byte(people), "semicolons.csv": []byte("x;y\n1;2\n")})
	sets, words, err := CSV(filepath.Join(root, "people.csv"), wanted())
	if err != nil {
		t.Fatal(err)
	}
	if sets.Test != nil || sets.HeldOut != nil {
		t.Error("a part that was not asked for is there")
	}
	want := [][]float32{{2.5, 31, 3, 1}, {-1000, 40.5, 1, 0}, {0, 7, 2, 1}, {1, 99, 3, 0}}
	if got := rowsOf(t, sets.Train); !reflect.DeepEqual(got, want) {
		t.Errorf("rows %v, want %v", got, want)
	}
	vocabularies := map[string][]string{"city": {"", "New\nYork", "Oslo", "Rome"}, "buys": {"no", "yes"}}
	if !reflect.DeepEqual(words, vocabularies) {
		t.Errorf("words %q", words)
	}
	checkSamples(t, sets.Train)

	sets, _, err = CSV(filepath.Join(root, "semicolons.csv"), Table{Numbers: []string{"x"}, Label: "y", Comma: ';'})
	if err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, sets.Train); !reflect.DeepEqual(got, [][]float32{{1, 2}}) {
		t.Errorf("rows %v", got)
	}
}

// A key's rows are in one part, each row is in one, and what is known of words is the training part's.
func TestPartsOfATable(t *testing.T) {
	text := "id,word,x\n"
	for i := range 3000 {
		text += fmt.Sprintf("%d,w%d,%d\n", i/3, i/3, i)
	}
	table := Table{Words: []string{"word"}, Label: "x", Key: "id", Test: 0.2, HeldOut: 0.1}
	path := filepath.Join(put(t, map[string][]byte{"t.csv": []byte(text)}), "t.csv")
	sets, words, err := CSV(path, table)
	if err != nil {
		t.Fatal(err)
	}
	part, digests := map[int]int{}, map[string]bool{}
	for i, d := range []evenweave.Data{sets.Train, sets.Test, sets.HeldOut} {
		share := []float64{0.7, 0.2, 0.1}[i]
		if n := float64(d.Len()); math.Abs(n/3000-share) > 0.05 {
			t.Errorf("part %d has %v rows", i, n)
		}
		digests[d.Digest()] = true
		for _, row := range rowsOf(t, d) {
			word, id := int(row[0]), int(row[1])/3
			if was, known := part[id]; known && was != i {
				t.Fatalf("key %d is in parts %d and %d", id, was, i)
			}
			part[id] = i
			if known := words["word"][word] == fmt.Sprintf("w%d", id); known != (i == 0) {
				t.Fatalf("part %d: word %d of key %d", i, word, id)
			}
		}
	}
	if len(part) != 1000 || len(digests) != 3 {
		t.Errorf("%d keys, %d digests", len(part), len(digests))
	}
	if len(words["word"])-1 != sets.Train.Len()/3 || words["word"][0] != "" {
		t.Errorf("%d words of %d training keys", len(words["word"]), sets.Train.Len()/3)
	}
	table.Test = 0.25
	other, _, err := CSV(path, table)
	if err != nil || other.Train.Digest() == sets.Train.Digest() {
		t.Errorf("another division has the same digest, %v", err)
	}
}

// A directory's own parts are taken, with the training part's words.
func TestDirectoryOfTables(t *testing.T) {
	root := put(t, map[string][]byte{"train.csv": []byte("w,x\na,1\nb,2\n"), "test.csv": []byte("x,w\n3,b\n4,c\n")})
	sets, _, err := CSV(root, Table{Words: []string{"w"}, Label: "x"})
	if err != nil {
		t.Fatal(err)
	}
	if got := rowsOf(t, sets.Test); !reflect.DeepEqual(got, [][]float32{{2, 3}, {0, 4}}) {
		t.Errorf("test rows %v", got)
	}
	if _, _, err := CSV(root, Table{Words: []string{"x"}, Label: "w", Classes: true}); err == nil ||
		!strings.Contains(err.Error(), `test.csv: line 3, column "w"`) {
		t.Errorf("a class of the test part alone: %v", err)
	}
}

// What cannot be read is named by file, line and column.
func TestEveryBadTableIsNamed(t *testing.T) {
	edit := func(from, to string) string { return strings.Replace(people, from, to, 1) }
	for says, text := range map[string]string{
		`line 2, column "age": the cell is empty`:                    edit("31", " "),
		`line 3, column "city": the cell is empty`:                   edit("\"New\nYork\"", ""),
		`line 4, column "net, income": "1e999" is no finite number`:  edit("-1e3", "1e999"),
		`line 5, column "age": "NaN" is no finite number`:            edit("7", "NaN"),
		`line 6, column "age": "old" is no finite number`:            edit("99", "old"),
		`there is no column "age"`:                                   edit("age", "years"),
		`names column "city" twice`:                                  edit("name", "city"),
		"line 2: wrong number of fields":                             edit(",a,yes", ",yes"),
		`line 6, column 17: extraneous or missing " in quoted-field`: edit("\"1\"", "\"1"),
		"its header cannot be read":                                  "",
		"has no row of the training part: it has 0 rows":             people[:strings.Index(people, "\n")+1],
	} {
		path := filepath.Join(put(t, map[string][]byte{"p.csv": []byte(text)}), "p.csv")
		if _, _, err := CSV(path, wanted()); err == nil || !strings.Contains(err.Error(), says) ||
			!strings.Contains(err.Error(), "p.csv") {
			t.Errorf("%v\nwant %q", err, says)
		}
	}
	root := put(t, map[string][]byte{"p.csv": []byte(people), "train.csv": nil, "test.csv": nil})
	change := func(f func(*Table)) Table { w := wanted(); f(&w); return w }
	for says, table := range map[string]Table{
		"and a Label":             change(func(w *Table) { w.Label = "" }),
		"each once":               change(func(w *Table) { w.Words = []string{"age"} }),
		"below 1":                 change(func(w *Table) { w.Test, w.HeldOut = 0.5, 0.5 }),
		"0 or more":               change(func(w *Table) { w.Test = math.NaN() }),
		`no column "nothing"`:     change(func(w *Table) { w.Key = "nothing" }),
		"no row of the test part": change(func(w *Table) { w.Test = 1e-9 }),
		`column "city" needs a vocabulary of 4, one place of it for words that are not trained on: it is 3`: change(
			func(w *Table) { w.Vocabulary = 3 }),
		"a vocabulary of at most -1": change(func(w *Table) { w.Vocabulary = -1 }),
	} {
		if _, _, err := CSV(filepath.Join(root, "p.csv"), table); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%v\nwant %q", err, says)
		}
	}
	if _, _, err := CSV(root, Table{Numbers: []string{"a"}, Label: "b", Test: 0.1}); err == nil ||
		!strings.Contains(err.Error(), "test.csv") {
		t.Errorf("a share of a divided directory: %v", err)
	}
	big := filepath.Join(root, "big.csv")
	if err := os.WriteFile(big, []byte("a,b\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	enough := wanted()
	enough.Vocabulary = 4
	if _, _, err := CSV(filepath.Join(root, "p.csv"), enough); err != nil {
		t.Error(err)
	}
	r := &rows{Table: Table{Numbers: []string{"a"}, Label: "b"}, files: &Files{root: root,
		files: []file{{name: "big.csv", size: maxCSV + 1}}}}
	if err := r.read(0); err == nil || !strings.Contains(err.Error(), "big.csv has 1073741825 bytes") {
		t.Errorf("a file above the bound: %v", err)
	}
}

// Columns are written as they are read, where commas can separate them.
func TestColumnsAsText(t *testing.T) {
	for text, want := range map[string]Columns{"": nil, "a": {"a"}, " a , b c,": {"a", "b c"}} {
		c := Columns{"before"}
		if err := c.UnmarshalText([]byte(text)); err != nil || !reflect.DeepEqual(c, want) {
			t.Errorf("%q: %q, %v", text, c, err)
		}
		written, err := c.MarshalText()
		var again Columns
		if err != nil || again.UnmarshalText(written) != nil || !reflect.DeepEqual(again, c) {
			t.Errorf("%q is written as %q: %v", c, written, err)
		}
	}
	for _, name := range []string{"a,b", " a", ""} {
		if text, err := (Columns{name}).MarshalText(); err == nil {
			t.Errorf("%q is written as %q", name, text)
		}
	}
}

// No bytes make CSV panic, and what it accepts can be loaded.
func FuzzCSV(f *testing.F) {
	f.Add([]byte(people), ',')
	f.Add([]byte("x;y\n1;\"a\"\"b\"\n"), ';')
	f.Add([]byte("x,y\n1,2,3"), ',')
	dir := f.TempDir()
	f.Setenv("XDG_CACHE_HOME", dir)
	f.Fuzz(func(t *testing.T, text []byte, comma rune) {
		path := filepath.Join(dir, "f.csv")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		header := strings.Split(strings.SplitN(string(text), "\n", 2)[0], string(comma))
		if len(header) < 2 {
			return
		}
		table := Table{Numbers: header[:1], Words: header[1 : len(header)-1], Label: header[len(header)-1],
			Classes: true,
			Comma:   comma, Test: 0.3}
		sets, words, err := CSV(path, table)
		if err != nil {
			return
		}
		for _, d := range []evenweave.Data{sets.Train, sets.Test} {
			for _, row := range rowsOf(t, d) {
				if class := int(row[len(row)-1]); class >= len(words[table.Label]) {
					t.Fatalf("class %d of %d", class, len(words[table.Label]))
				}
			}
		}
	})
}
