package evenweave_test

import (
	"bytes"
	"go/ast"
	"go/token"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode"
)

// retired are words that this project no longer uses: CONTRIBUTING.md ("Names and sentences") has the words that
// replace them.
var retired = regexp.MustCompile(`(?i)\b(` + strings.Join([]string{
	`deal|deals|dealt|dealing`,                             // assignment
	`inquests?|testif(y|ies|ied|ying)|judges?|judged`,      // arbitration, report
	`strikes?|struck|bench(ed|es|ing)`,                     // link failures, quarantined
	`patience|patient`,                                     // backoff
	`tells?|told|telling|heard?|hears|hearings?`,           // report, reported
	`boards?|disown(s|ed|ing)?|pulses?|vitals`,             // view, invalidate, pause detector, health
	`trainees?|examiners?`,                                 // named by the interface that they give
	`who|whom|whoever|nobody|anew|owned up|(is|are) to be`, // it; plain verbs
}, "|") + `)\b`)

// retiredNames are refused as names only: prose has other uses for them.
var retiredNames = []string{"floor", "print", "prints"}

// wordsNotDone are folders that still hold retired words or long lines.
var wordsNotDone = []string{}

// readable are the files that people read.
var readable = []string{".go", ".md", ".yaml", ".yml", ".sh", ".proto", ".svg", ".json", "Makefile", "Dockerfile"}

const columns = 120 // with tabs of 4

// Everybody who reads this project shares one language: the field's terms and plain sentences.
func TestWords(t *testing.T) {
	found := map[string]bool{}
	report := func(name, line, what string) {
		dir := path.Dir(name)
		if found[dir] = true; !slices.Contains(wordsNotDone, dir) {
			t.Errorf("%s:%s: %s", name, line, what)
		}
	}
	raw := map[string]bool{} // lines of raw strings, whose line breaks are content
	for _, s := range sources(t) {
		if s.generated || s.path == "words_test.go" {
			continue
		}
		at := func(p token.Pos) string { return strconv.Itoa(s.positions.Position(p).Line) }
		for _, group := range s.Comments {
			for _, c := range group.List {
				if word := retired.FindString(c.Text); word != "" {
					report(s.path, at(c.Pos()), "retired: "+word)
				}
			}
		}
		tags := map[*ast.BasicLit]bool{}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.Field:
				tags[n.Tag] = true // names of fields are fixed: scripts and records rely on them
			case *ast.Ident:
				if word := retired.FindString(spaced(n.Name)); word != "" || slices.Contains(retiredNames, n.Name) {
					report(s.path, at(n.Pos()), "retired name: "+n.Name)
				}
			case *ast.BasicLit:
				for line := range strings.Count(n.Value, "\n") + 1 {
					if n.Value[0] == '`' {
						raw[s.path+":"+strconv.Itoa(s.positions.Position(n.Pos()).Line+line)] = true
					}
				}
				prose := n.Kind == token.STRING && strings.Contains(n.Value, " ") && !tags[n]
				if word := retired.FindString(n.Value); prose && word != "" {
					report(s.path, at(n.Pos()), "retired: "+word)
				}
			}
			return true
		})
	}
	for name, text := range texts(t) {
		fenced := false
		for i, line := range strings.Split(text, "\n") {
			at := strconv.Itoa(i + 1)
			fenced = fenced != strings.HasPrefix(strings.TrimSpace(line), "```")
			goFile, document := path.Ext(name) == ".go", path.Ext(name) == ".md"
			if word := retired.FindString(line); !goFile && word != "" {
				report(name, at, "retired: "+word)
			}
			free := fenced || strings.HasPrefix(line, "|") || strings.Contains(line, "](") ||
				strings.Contains(line, "<")
			if width := width(line); width > columns && (goFile && !raw[name+":"+at] || document && !free) {
				report(name, at, strconv.Itoa(width)+" columns, at most "+strconv.Itoa(columns))
			}
		}
	}
	for _, dir := range wordsNotDone {
		if !found[dir] {
			t.Errorf("%s is done: take it out of wordsNotDone", dir)
		}
	}
}

// texts yields what people read beside names: the lines of Go files (generated ones apart), documents, manifests and
// scripts.
func texts(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		base := d.Name()
		switch {
		case err != nil:
			return err
		case d.IsDir() && name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" || base == "bin"):
			return fs.SkipDir
		case !slices.Contains(readable, path.Ext(base)) && !slices.Contains(readable, base):
			return nil
		}
		text, err := os.ReadFile(name)
		if !bytes.Contains(text[:min(len(text), 200)], []byte("// Code generated")) {
			all[name] = string(text)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// spaced splits a name into its words: setNumberOf, set_number_of become "set Number Of".
func spaced(name string) string {
	var b strings.Builder
	for _, r := range name {
		if unicode.IsUpper(r) || r == '_' {
			b.WriteByte(' ')
		}
		if r != '_' {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func width(line string) int {
	return len([]rune(strings.ReplaceAll(line, "\t", "    ")))
}
