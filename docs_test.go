package evenweave_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"evenweave"
	"evenweave/checkpoint"
	"evenweave/cli"
	"evenweave/evenweavetest"
	"evenweave/fashion"
	"evenweave/internal/checkpointtest"
	"evenweave/internal/state"
)

// beEvenweave makes this test binary the program, so that the documents are checked against what they describe.
const beEvenweave = "EVENWEAVE_TEST_BINARY_IS_EVENWEAVE"

func TestMain(m *testing.M) {
	if os.Getenv(beEvenweave) != "" {
		cli.Main(fashion.Task())
	}
	evenweavetest.ClearVariables()
	os.Exit(m.Run())
}

func documents(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, below := range []string{"docs/*.md", "deploy/*/*.md", "examples/*/*.md"} {
		more, err := filepath.Glob(below)
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, more...)
	}
	return names
}

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// help returns what a command line prints, with --help after it: its flags are parsed and checked, and nothing is run.
func help(t *testing.T, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(os.Args[0], append(args, "--help")...)
	cmd.Env = append(os.Environ(), beEvenweave+"=1")
	out, err := cmd.CombinedOutput()
	if err == nil && len(args) > 0 && !strings.Contains(string(out), "Usage:\n  evenweave "+args[0]) {
		err = fmt.Errorf("there is no command %q", args[0])
	}
	return string(out), err
}

// Commands of the documents' code blocks exist, with those flags.
func TestDocumentedCommandsExist(t *testing.T) {
	makefile := read(t, "Makefile")
	checked := map[string]bool{}
	for _, name := range documents(t) {
		for line, command := range commands(read(t, name)) {
			words := split(command)
			if len(words) == 0 || checked[command] {
				continue
			}
			checked[command] = true
			at := fmt.Sprintf("%s:%d: %s", name, line, command)
			switch filepath.Base(words[0]) {
			case "evenweave":
				if out, err := help(t, words[1:]...); err != nil {
					t.Errorf("%s\n%v\n%s", at, err, out)
				}
			case "make":
				if err := checkMake(t, makefile, words[1:]); err != nil {
					t.Errorf("%s\n%v", at, err)
				}
			}
		}
	}
	if len(checked) == 0 {
		t.Error("no document holds a command: this test has lost its subject")
	}
}

// checkMake looks up targets and variables; what ARGS holds must fit `evenweave train`.
func checkMake(t *testing.T, makefile string, words []string) error {
	for _, w := range words {
		name, value, assignment := strings.Cut(w, "=")
		switch {
		case assignment && !strings.Contains(makefile, "$("+name+")"):
			return fmt.Errorf("the Makefile does not use %s", name)
		case assignment && name == "ARGS":
			if out, err := help(t, append([]string{"train"}, strings.Fields(value)...)...); err != nil {
				return fmt.Errorf("%w\n%s", err, out)
			}
		case !assignment && !strings.Contains("\n"+makefile, "\n"+name+":"):
			return fmt.Errorf("the Makefile has no target %q", name)
		}
	}
	return nil
}

// commands yields the command lines of a document's sh and console blocks, by line number; those of console blocks
// follow a "$ ".
func commands(text string) func(yield func(int, string) bool) {
	return func(yield func(int, string) bool) {
		language := ""
		for i, line := range strings.Split(text, "\n") {
			line = strings.TrimSpace(line)
			fence, opens := strings.CutPrefix(line, "```")
			prompted, prompt := strings.CutPrefix(line, "$ ")
			switch {
			case opens && language == "":
				language = fence + " "
			case opens:
				language = ""
			case language == "sh " || language == "console " && prompt:
				if !yield(i+1, prompted) {
					return
				}
			}
		}
	}
}

// split cuts a command line into words as a shell does for the simple lines of documents; it ends at a pipe, a comment
// or the like.
func split(command string) (words []string) {
	word := regexp.MustCompile(`(?:[^\s"']+|"[^"]*"|'[^']*')+`)
	for _, w := range word.FindAllString(command, -1) {
		if w = strings.NewReplacer(`"`, "", `'`, "").Replace(w); slices.Contains([]string{"|", "&", "&&", ";", "#", "\\"}, w) || w[0] == '#' || w[0] == '>' {
			break
		}
		words = append(words, w)
	}
	return words
}

var flagInHelp = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z-]+)`)

// Each command and each flag that there is has its line in the manual.
func TestManualNamesEveryFlag(t *testing.T) {
	const name = "docs/operations.md"
	manual := read(t, name)
	seen := 0
	var visit func(path ...string)
	visit = func(path ...string) {
		out, err := help(t, path...)
		if err != nil {
			t.Fatalf("%v: %v\n%s", path, err, out)
		}
		if _, list, ok := strings.Cut(out, "Available Commands:\n"); ok {
			list, _, _ = strings.Cut(list, "\n\n")
			for line := range strings.Lines(list) {
				if name := strings.Fields(line)[0]; name != "help" {
					visit(append(path[:len(path):len(path)], name)...)
				}
			}
			return
		}
		seen++
		if command := "evenweave " + strings.Join(path, " "); !strings.Contains(manual, "`"+command) {
			t.Errorf("%s does not name `%s`", name, command)
		}
		for _, m := range flagInHelp.FindAllStringSubmatch(out, -1) {
			if m[1] != "--help" && !regexp.MustCompile("`"+m[1]+"[` ]").MatchString(manual) {
				t.Errorf("%s does not name %s, a flag of `evenweave %s`", name, m[1], strings.Join(path, " "))
			}
		}
	}
	visit()
	if seen == 0 {
		t.Error("there is no command")
	}
}

// Each flag of the two processes of a cluster can be set for `docker compose up`, except those that Compose decides.
func TestComposePassesVariablesOn(t *testing.T) {
	compose := read(t, "docker-compose.yml")
	decided := []string{"--help", "--data", "--id", "--advertise", "--when-done", "--insecure"}
	for _, process := range []string{"coordinator", "worker"} {
		_, service, _ := strings.Cut(compose, "\n  "+process+":\n")
		service, _, _ = strings.Cut(service, "\n\n")
		_, shared, _ := strings.Cut(compose, "\nx-environment:")
		shared, _, _ = strings.Cut(shared, "\n\n")
		out, err := help(t, process)
		if err != nil {
			t.Fatal(err, out)
		}
		for _, m := range flagInHelp.FindAllStringSubmatch(out, -1) {
			variable := "EVENWEAVE_" + strings.ToUpper(strings.ReplaceAll(m[1][2:], "-", "_")) + ":"
			if !slices.Contains(decided, m[1]) && !strings.Contains(service+shared, variable) {
				t.Errorf("docker-compose.yml: %s lacks %s", process, variable)
			}
		}
	}
}

// The program in docs/checkpoints.md reads a checkpoint that this module wrote, and refuses one with lengths that do
// not agree.
func TestDocumentedProgramReadsACheckpoint(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles a program: skipped by -short")
	}
	dir := t.TempDir()
	_, program, _ := strings.Cut(read(t, "docs/checkpoints.md"), "```go\n")
	program, _, _ = strings.Cut(program, "```")
	if err := os.WriteFile(filepath.Join(dir, "weights.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	layout, err := state.NewLayout([]evenweave.Tensor{
		{Name: "dense/kernel", Type: evenweave.Float32, Shape: []int{2, 2}, Role: evenweave.Trained},
		{Name: "dense/bias", Type: evenweave.Float32, Shape: []int{2}, Role: evenweave.Trained},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(layout, 100)
	s.Step = 7
	for i := range 6 {
		if _, err := binary.Encode(s.Image[4*i:], binary.LittleEndian, float32(i+1)); err != nil {
			t.Fatal(err)
		}
	}
	path, err := checkpointtest.Save(t.Context(), filepath.Join(dir, "checkpoints"), checkpoint.Manifest{}, s)
	if err != nil {
		t.Fatal(err)
	}
	weights := filepath.Join(dir, "weights")
	if out, err := exec.Command("go", "build", "-o", weights,
		filepath.Join(dir, "weights.go")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	whole := read(t, path)
	image := len(whole) - 48 - int(layout.Size)
	flipped := func(i int) string { return whole[:i] + string(whole[i]^1) + whole[i+1:] }
	// sealed has the hash that it should have if it covered what is before the last n bytes of the payload
	sealed := func(file string, n int) string {
		end := len(file) - sha256.Size
		sum := sha256.Sum256([]byte(file[:end-16-n] + file[end-16:end]))
		return file[:end] + string(sum[:])
	}
	length := int(binary.LittleEndian.Uint64([]byte(whole[8:])))
	for _, hostile := range []string{
		sealed(strings.Replace(whole, `"shape":[2,2]`, `"shape":[9,9]`, 1), int(layout.Size)),
		sealed(strings.Replace(whole, `"shape":[2,2]`, `"shape":[2,-2]`, 1), int(layout.Size)),
		sealed(strings.Replace(whole, `"offset":16`, `"offset":20`, 1), int(layout.Size)),
		sealed(strings.Replace(whole, `"offset":16`, `"offset":-4`, 1), int(layout.Size)),
		sealed(whole[:8]+strings.Repeat("\xff", 8)+whole[16:], int(layout.Size)),
		// how much the hash covers
		sealed(whole[:len(whole)-40]+strings.Repeat("\xff", 8)+whole[len(whole)-32:], int(layout.Size)),
		sealed(whole[:len(whole)-40]+strings.Repeat("\x00", 8)+whole[len(whole)-32:], len(whole)-48-16-length),
		flipped(image - 1), flipped(image), flipped(len(whole) - 48), flipped(20), flipped(len(whole) - 1),
	} {
		name := filepath.Join(dir, "hostile")
		if err := os.WriteFile(name, []byte(hostile), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(weights, name).CombinedOutput(); err == nil ||
			strings.Contains(string(out), "panic") || hostile == whole {
			t.Errorf("a hostile checkpoint: %v\n%.300s", err, out)
		}
	}
	out, err := exec.Command(weights, path).CombinedOutput()
	if want := "dense/kernel [2 2] [1 2 3]\ndense/bias [2] [5 6]\n"; err != nil || string(out) != want {
		t.Errorf("%v\n%s\nwant:\n%s", err, out, want)
	}
}

// Code of your own model's page is that of an example which tests run, line by line.
func TestDocumentedCodeIsThatOfExamples(t *testing.T) {
	for mark, file := range map[string]string{
		"own.Weight": "gomlx/weights_example_test.go", "counts(labels)": "gomlx/weights_example_test.go",
		"type records": "dataset/source_example_test.go",
	} {
		code, found := read(t, file), 0
		for block := range strings.SplitSeq(read(t, "docs/your-own-model.md"), "```") {
			if !strings.HasPrefix(block, "go\n") || !strings.Contains(block, mark) {
				continue
			}
			found++
			for line := range strings.Lines(strings.TrimPrefix(block, "go\n")) {
				line, _, _ = strings.Cut(strings.TrimSpace(line), " //")
				if !strings.Contains(code, line) {
					t.Errorf("the code with %q is not that of %s: %q", mark, file, line)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d blocks of code have %q", found, mark)
		}
	}
}

func TestLinksLeadSomewhere(t *testing.T) {
	link := regexp.MustCompile(`(?:\]\(|src="|srcset=")([^)#" ]+)`)
	for _, name := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(read(t, name), -1) {
			if target := m[1]; !strings.Contains(target, "://") {
				if _, err := os.Stat(filepath.Join(filepath.Dir(name), target)); err != nil {
					t.Errorf("%s: link to %s: %v", name, target, err)
				}
			}
		}
	}
}

// section returns what stands under a heading.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, "\n## "+heading+"\n")
	if !found {
		t.Fatalf("there is no section %q", heading)
	}
	body, _, _ := strings.Cut(rest, "\n## ")
	return body
}

// Every failure that ARCHITECTURE.md promises to survive, and every attack that docs/security.md promises to withstand,
// names the test that shows it.
func TestFailuresNameTheirTests(t *testing.T) {
	declared := map[string]bool{}
	for _, s := range sources(t) {
		if s.test {
			for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz|Example)\w*)`).FindAllStringSubmatch(
				read(t, s.path), -1) {
				declared[path.Base(s.dir)+"."+m[1]] = true
			}
		}
	}
	for _, table := range []struct{ document, section, head string }{{"ARCHITECTURE.md", "Failures", "failure"},
		{"docs/security.md", "What shows it", "attack"}} {
		rows := 0
		for line := range strings.Lines(section(t, read(t, table.document), table.section)) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
			if !strings.HasPrefix(line, "|") || strings.Contains(cells[0], "---") ||
				strings.TrimSpace(cells[0]) == table.head {
				continue
			}
			rows++
			last := cells[len(cells)-1]
			tests := regexp.MustCompile("`([^`]+)`").FindAllStringSubmatch(last, -1)
			if len(tests) == 0 {
				t.Errorf("no test is named in: %s", line)
			}
			for _, m := range tests {
				if !declared[m[1]] {
					t.Errorf("there is no test %s, named in: %s", m[1], line)
				}
			}
		}
		if rows == 0 {
			t.Errorf("%s: the table is empty", table.document)
		}
	}
}

// Every module that is imported is one that ARCHITECTURE.md gives a reason for.
func TestDependenciesAreExplained(t *testing.T) {
	named := regexp.MustCompile("`([a-z0-9.]+/[^`]+)`").FindAllStringSubmatch(section(t, read(t, "ARCHITECTURE.md"),
		"Dependencies"), -1)
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			explained := !strings.Contains(strings.Split(imported, "/")[0], ".")
			for _, m := range named {
				explained = explained || strings.HasPrefix(imported+"/", m[1]+"/")
			}
			if !explained {
				t.Errorf("%s imports %s, which ARCHITECTURE.md's list of dependencies lacks", s.path, imported)
			}
		}
	}
}

// Every file that starts goroutines has its place in ARCHITECTURE.md's list of them.
func TestGoroutinesAreListed(t *testing.T) {
	list := section(t, read(t, "ARCHITECTURE.md"), "Goroutines")
	starts := regexp.MustCompile(`(?m)^\s*go |\.Go\(|context\.AfterFunc\(`)
	// what they start ends with one command or test
	tools := []string{"internal/chaos", "allreduce/bench", "allreduce/allreducetest", "internal/etcdtest", "deploy/*"}
	for _, s := range sources(t) {
		if !s.test && !s.within(tools) && !s.generated && starts.MatchString(read(t, s.path)) &&
			!strings.Contains(list, "`"+s.path+"`") {
			t.Errorf("%s starts a goroutine and is not in ARCHITECTURE.md's list", s.path)
		}
	}
}
