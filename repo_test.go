package evenweave_test

import (
	"bytes"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// layers is the direction of imports: a package may import only packages of the layers below its own. So worker and
// coordinator never import each other, and nothing below the command line knows what is above it.
var layers = [][]string{
	{"cmd/evenweave", "examples/*"},
	{"cli", "fashion"}, // so that neither imports the other: the command line knows no task, a task no command line
	{"internal/chaos", "internal/simulation", "internal/etcdtest", "internal/checkpointtest"},
	{"internal/local", "coordinator", "worker", "allreduce/bench"},
	{"internal/transfer"},
	{"internal/telemetry", "internal/tracing", "internal/mlflow", "internal/tensorboard",
		"internal/web", "internal/plot", "evenweavetest",
		"gomlx"},
	{"internal/policy", "internal/probe", "fashion/evaluate", "fashion/cnn", "fashion/fashionmnist",
		"checkpoint", "internal/cluster", "internal/progress", "allreduce/grpclink", "allreduce/allreducetest"},
	{"internal/security"},
	{"internal/job", "internal/state", "internal/verify", "allreduce", "gomlx/backend"},
	{"internal/example"},
	{"dataset", "internal/schedule", "internal/exact", "proto", "internal/serving", "internal/processors"},
	{"internal/regular", "internal/guard", "dataset/picture", "internal/sheet", "internal/terminal",
		"internal/options", "internal/safetensors", "onnx", "evaluation"},
	{"."},        // the words that a task is made of
	{"deploy/*"}, // stand-alone programs and tests
}

// homes says where each technology may be imported. A version of it can then be replaced by reading one folder.
var homes = []struct {
	prefix string
	in     []string
}{
	{"github.com/gomlx/", []string{"gomlx/*", "fashion/cnn", "examples/*"}},
	{"go.etcd.io/", []string{"internal/cluster", "internal/local"}},
	{"google.golang.org/grpc", []string{"proto", "internal/serving", "internal/security", "allreduce/grpclink",
		"allreduce/bench",
		"internal/cluster", "internal/transfer", "worker", "coordinator", "cli"}},
	{"crypto/tls", []string{"internal/security"}},
	{"crypto/x509", []string{"internal/security"}},
	{"github.com/prometheus/", []string{"internal/telemetry"}},
	{"go.opentelemetry.io/", []string{"internal/tracing"}},
	{"github.com/spf13/", []string{"cli"}},
	// Randomness that is no function of an explicit key has no place where bits are decided: it makes faults, and
	// chooses ports.
	{"math/rand", []string{"internal/chaos", "internal/local/page.go", "worker/fault.go", "allreduce/allreducetest",
		"internal/simulation", "internal/tracing"}},
}

// pure packages and files do no I/O, read no clock and start no goroutine.
var pure = []string{"random.go", "internal/schedule", "internal/exact", "internal/job", "internal/state",
	"internal/policy", "internal/options", "allreduce/plan.go"}

const (
	maxLines     = 440 // about 400 is the aim
	maxTestLines = 500
)

// source is a Go file of this repository.
type source struct {
	path string // slash-separated, from the root
	dir  string
	test bool
	*ast.File
	lines     int
	generated bool
	positions *token.FileSet
}

// sources parses every Go file, whatever its build constraints.
func sources(t *testing.T) []source {
	t.Helper()
	var all []source
	err := fs.WalkDir(os.DirFS("."), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if base := d.Name(); name != "." && (base[0] == '.' || base[0] == '_' || base == "testdata" ||
				base == "bin") {
				return fs.SkipDir
			}
			return nil
		}
		if path.Ext(name) != ".go" {
			return nil
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		positions := token.NewFileSet()
		file, err := parser.ParseFile(positions, name, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		all = append(all, source{
			path: name, dir: path.Dir(name), test: strings.HasSuffix(name, "_test.go"), File: file,
			lines: bytes.Count(text, []byte("\n")), generated: ast.IsGenerated(file), positions: positions,
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func (s source) imports() []string {
	var paths []string
	for _, i := range s.Imports {
		p, _ := strconv.Unquote(i.Path.Value)
		paths = append(paths, p)
	}
	return paths
}

// within says whether a file is in one of the places: a folder, a file, or what begins as a pattern does that ends in
// *.
func (s source) within(places []string) bool {
	return slices.ContainsFunc(places, func(p string) bool {
		if deep, ok := strings.CutSuffix(p, "*"); ok {
			return strings.HasPrefix(s.path, deep)
		}
		return p == s.dir || p == s.path
	})
}

func layerOf(s source) int {
	return slices.IndexFunc(layers, func(l []string) bool { return s.within(l) })
}

// moduleName is the first line of go.mod: nothing but that and import lines knows it, so that `make rename` can change
// it.
func moduleName(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("go.mod")
	if err != nil {
		t.Fatal(err)
	}
	first, _, _ := strings.Cut(string(text), "\n")
	return strings.TrimPrefix(first, "module ")
}

// What a task is made of can be imported by a task in another module: the built-in task, the examples and the packages
// that they use import nothing internal, except what a library needs within and hands to no task.
func TestATaskNeedsNothingInternal(t *testing.T) {
	inside := moduleName(t) + "/internal/"
	places := map[string][]string{ // the internal packages that each may import
		"fashion*": nil, "examples/*": nil, "onnx*": nil,
		"dataset*": {"guard", "regular"},               // calls a Source; opens files that others made
		"gomlx*":   {"guard", "processors", "regular"}, // builds graphs; compiles on one processor; reads plug-ins
	}
	for place, allowed := range places {
		seen := 0
		for _, s := range sources(t) {
			if !s.within([]string{place}) || s.test {
				continue
			}
			seen++
			for _, p := range s.imports() {
				if name, internal := strings.CutPrefix(p, inside); internal && !slices.Contains(allowed, name) {
					t.Errorf("%s imports %s, which a task in another module cannot", s.path, p)
				}
			}
		}
		if seen == 0 {
			t.Errorf("no file is in %s", place)
		}
	}
}

func TestImportsPointDownwards(t *testing.T) {
	module := moduleName(t)
	for _, s := range sources(t) {
		own := layerOf(s)
		if own < 0 {
			t.Errorf("%s: folder %s is in no layer: add it to layers in repo_test.go and to the picture in "+
				"ARCHITECTURE.md", s.path, s.dir)
			continue
		}
		for _, imported := range s.imports() {
			dir, ours := strings.CutPrefix(imported+"/", module+"/")
			if dir = strings.TrimSuffix(dir, "/"); dir == "" {
				dir = "."
			}
			if !ours || s.test {
				continue
			}
			if layer := layerOf(source{path: dir + "/", dir: dir}); layer <= own {
				t.Errorf("%s imports %s, which is not below it (layers in repo_test.go)", s.path, dir)
			}
		}
	}
}

func TestEachTechnologyHasItsHome(t *testing.T) {
	for _, s := range sources(t) {
		for _, imported := range s.imports() {
			for _, h := range homes {
				if strings.HasPrefix(imported, h.prefix) && !s.test && !s.within(h.in) {
					t.Errorf("%s imports %s, whose home is %v", s.path, imported, h.in)
				}
			}
			if s.dir == "allreduce" && !s.test && strings.Contains(strings.Split(imported, "/")[0], ".") {
				t.Errorf("%s imports %s: allreduce uses the standard library only", s.path, imported)
			}
		}
	}
}

// linked lists the packages of other modules that some packages of this one are made of.
func linked(t *testing.T, packages ...string) (others []string) {
	t.Helper()
	args := append([]string{"list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}"}, packages...)
	out, err := exec.Command("go", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	own := 0
	for _, p := range strings.Fields(string(out)) {
		if strings.HasPrefix(p, moduleName(t)+"/") || p == moduleName(t) {
			own++
		} else {
			others = append(others, p)
		}
	}
	if own < len(packages) {
		t.Fatalf("go list names %d packages of this module: this test has lost its subject", own)
	}
	return others
}

// A user's program pays for what it uses: the command line links no library of plots and no GoMLX. The page is made of
// the standard library alone.
func TestWhatIsLinked(t *testing.T) {
	for _, p := range linked(t, "./cli") {
		for _, heavy := range []string{"gonum.org/", "github.com/gomlx/"} {
			if strings.HasPrefix(p, heavy) {
				t.Errorf("cli links %s", p)
			}
		}
	}
	if others := linked(t, "./internal/web"); len(others) > 0 {
		t.Errorf("internal/web links %v: it is made of the standard library alone", others)
	}
}

// What is served to others is served within the limits of package serving. The benchmark of the ring measures gRPC
// alone, on loopback.
func TestServersAreMadeInOnePlace(t *testing.T) {
	for _, s := range sources(t) {
		if s.test || s.within([]string{"internal/serving", "allreduce/bench", "deploy/*"}) {
			continue
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok {
				p, _ := sel.X.(*ast.Ident)
				if p != nil && (p.Name == "grpc" && sel.Sel.Name == "NewServer" || p.Name == "http" &&
					slices.Contains([]string{"Serve", "ListenAndServe"}, sel.Sel.Name)) {
					t.Errorf("%s: %s.%s: use package serving, which sets the limits", s.positions.Position(n.Pos()),
						p.Name, sel.Sel.Name)
				}
			}
			if made, ok := n.(*ast.CompositeLit); ok {
				if sel, ok := made.Type.(*ast.SelectorExpr); ok && sel.Sel.Name == "Server" {
					t.Errorf("%s: a server of its own: use package serving, which sets the limits",
						s.positions.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// A file that a crash may not halve is written by package regular, which syncs it and its folder: a rename by hand
// forgets one of them. The store of checkpoints has a file system of its own, into which tests put faults.
func TestFilesAreReplacedInOnePlace(t *testing.T) {
	seen := 0
	for _, s := range sources(t) {
		ast.Inspect(s.File, func(n ast.Node) bool {
			sel, ok := n.(*ast.SelectorExpr)
			if !ok || s.test {
				return true
			}
			if p, ok := sel.X.(*ast.Ident); ok && p.Name == "os" && sel.Sel.Name == "Rename" {
				if seen++; !s.within([]string{"internal/regular", "checkpoint/fs.go"}) {
					t.Errorf("%s: os.Rename: use package regular", s.positions.Position(n.Pos()))
				}
			}
			return true
		})
	}
	if seen == 0 {
		t.Error("nothing renames: this test has lost its subject")
	}
}

func TestPureCode(t *testing.T) {
	impure := []string{"os", "net", "syscall", "log", "context"}
	clock := []string{"Now", "Since", "Until", "Sleep", "After", "AfterFunc", "Tick", "NewTimer", "NewTicker"}
	found := map[string]bool{}
	defer func() {
		for _, place := range pure {
			if !found[place] {
				t.Errorf("%s, listed as pure, is not there", place)
			}
		}
	}()
	for _, s := range sources(t) {
		if s.test || !s.within(pure) {
			continue
		}
		for _, place := range pure {
			found[place] = found[place] || s.within([]string{place})
		}
		for _, imported := range s.imports() {
			if slices.Contains(impure, strings.Split(imported, "/")[0]) {
				t.Errorf("%s imports %s: it is to do no I/O", s.path, imported)
			}
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				t.Errorf("%s: starts a goroutine in pure code", s.positions.Position(n.Pos()))
			case *ast.SelectorExpr:
				if p, ok := n.X.(*ast.Ident); ok && p.Name == "time" && slices.Contains(clock, n.Sel.Name) {
					t.Errorf("%s: time.%s in pure code", s.positions.Position(n.Pos()), n.Sel.Name)
				}
			}
			return true
		})
	}
}

func TestOneCommentEachPackage(t *testing.T) {
	comments := map[string][]string{}
	packages := map[string]string{}
	for _, s := range sources(t) {
		if s.test || s.generated {
			continue
		}
		packages[s.dir] = s.Name.Name
		if s.Doc != nil && strings.TrimSpace(s.Doc.Text()) != "" {
			comments[s.dir] = append(comments[s.dir], s.path)
			if first := s.Doc.Text(); s.Name.Name != "main" && !strings.HasPrefix(first, "Package "+s.Name.Name+" ") {
				t.Errorf("%s: the package comment does not begin with \"Package %s\"", s.path, s.Name.Name)
			}
		}
	}
	for dir, name := range packages {
		if n := len(comments[dir]); n != 1 {
			t.Errorf("package %s in %s has %d package comments %v, expected one", name, dir, n, comments[dir])
		}
	}
}

func TestFoldersSayWhatTheyHold(t *testing.T) {
	for _, s := range sources(t) {
		for part := range strings.SplitSeq(s.dir, "/") {
			if slices.Contains([]string{"util", "utils", "common", "pkg", "misc", "helpers", "lib"}, part) {
				t.Errorf("%s: a folder named %q says nothing", s.path, part)
			}
		}
	}
}

func TestFilesAreShort(t *testing.T) {
	for _, s := range sources(t) {
		most := maxLines
		if s.test {
			most = maxTestLines
		}
		if s.lines > most && !s.generated {
			t.Errorf("%s has %d lines, at most %d are allowed: split it by what it does", s.path, s.lines, most)
		}
	}
}

// An example is a whole program that is read in one go: docs/your-own-model.md says how long one is.
func TestExamplesAreShort(t *testing.T) {
	lines := map[string]int{}
	for _, s := range sources(t) {
		if parts := strings.Split(s.path, "/"); parts[0] == "examples" && !s.test {
			lines[parts[1]] += s.lines
		}
	}
	for name, n := range lines {
		if n >= 120 {
			t.Errorf("examples/%s has %d lines: what every such program needs belongs into the library", name, n)
		}
	}
	if len(lines) < 4 {
		t.Errorf("there are examples of %v", lines)
	}
}

// A test that sleeps to wait for something fails on a slow machine and wastes a fast one. It may in a bubble of
// testing/synctest, where time is virtual, and where the pause itself is what is wanted: then a comment on the line
// says "this is the work".
func TestNoTestSleeps(t *testing.T) {
	all := sources(t)
	virtual := map[string]bool{}
	for _, s := range all {
		if slices.Contains(s.imports(), "testing/synctest") {
			virtual[s.dir] = true
		}
	}
	for _, s := range all {
		if !s.test || virtual[s.dir] {
			continue
		}
		work := map[int]bool{} // by line
		for _, c := range s.Comments {
			work[s.positions.Position(c.Pos()).Line] = strings.Contains(c.Text(), "this is the work")
		}
		ast.Inspect(s.File, func(n ast.Node) bool {
			if n != nil && work[s.positions.Position(n.Pos()).Line] {
				return false
			}
			if sel, ok := n.(*ast.SelectorExpr); ok && sel.Sel.Name == "Sleep" {
				if p, ok := sel.X.(*ast.Ident); ok && p.Name == "time" {
					t.Errorf("%s: time.Sleep: wait for what the test needs instead", s.positions.Position(n.Pos()))
				}
			}
			return true
		})
	}
}

// Commands under test read none of the variables of the process that runs the test.
func TestNoVariableReachesATest(t *testing.T) {
	module := moduleName(t)
	for _, s := range sources(t) {
		main := slices.ContainsFunc(s.Decls, func(d ast.Decl) bool {
			f, ok := d.(*ast.FuncDecl)
			return ok && f.Name.Name == "TestMain"
		})
		commands := s.within([]string{"cli", "cmd/*"}) || slices.Contains(s.imports(), module+"/cli")
		if main && commands && !slices.Contains(s.imports(), module+"/evenweavetest") {
			t.Errorf("%s: TestMain runs tests without evenweavetest.ClearVariables", s.path)
		}
	}
}

// image.Decode uses whatever formats the packages of the program register: a library may bring TIFF, which takes memory
// without bound.
func TestOnlyChosenImageFormatsAreDecoded(t *testing.T) {
	for _, s := range sources(t) {
		ast.Inspect(s.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Decode" || sel.Sel.Name == "DecodeConfig") {
				if p, ok := sel.X.(*ast.Ident); ok && p.Name == "image" {
					t.Errorf("%s: image.%s: use dataset/picture, which chooses the formats",
						s.positions.Position(n.Pos()), sel.Sel.Name)
				}
			}
			return true
		})
	}
}
