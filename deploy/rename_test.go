package deploy

import (
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// outside is a program in a module of its own that uses this one.
const outside = `package main

import "MODULE"

func main() { println((&evenweave.Task{Name: "outside"}).Name) }
`

// TestRename gives a copy of this module another name, builds it, and builds a program outside that uses it by a
// replace line: under the new name, and under the one that it has.
func TestRename(t *testing.T) {
	if testing.Short() {
		t.Skip("compiles everything again")
	}
	const name = "git.example.org/owner/evenweave"
	copied := t.TempDir()
	copyModule(t, "..", copied)
	run(t, copied, "deploy/rename.sh", name)
	run(t, copied, "go", "build", "-o", os.DevNull, "./cmd/evenweave")
	const old = `^[[:space:]]*([[:alnum:]_.]+ )?"evenweave(/|"$)|^module evenweave|=> *evenweave`
	if left := run(t, copied, "grep", "-rnE", "--include=*.go", "--include=go.mod", old, "."); left != "" {
		t.Errorf("the old name is left in\n%s", left)
	}
	useFromOutside(t, copied, name)
	here, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	useFromOutside(t, here, strings.TrimSpace(run(t, here, "go", "list", "-m")))
}

func useFromOutside(t *testing.T, module, name string) {
	t.Helper()
	dir := t.TempDir()
	for file, text := range map[string]string{
		"main.go": strings.ReplaceAll(outside, "MODULE", name),
		"go.mod": "module outside\n\ngo 1.26.8\n\nrequire " + name + " v0.0.0\n\nreplace " + name + " => " +
			module + "\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	run(t, dir, "go", "build", "-mod=mod", "-o", os.DevNull, ".")
}

// copyModule copies what belongs to the module, without what was built or fetched.
func copyModule(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".evenweave", "bin", "run"}, relative) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, relative), 0o700)
		}
		if !d.Type().IsRegular() {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, relative), text, info.Mode().Perm())
	})
	if err != nil {
		t.Fatal(err)
	}
}

// run returns what the command prints. grep that finds nothing is no failure.
func run(t *testing.T, dir, command string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), command, args...)
	cmd.Dir = dir
	if strings.Contains(command, "/") {
		cmd.Path = filepath.Join(dir, command)
	}
	out, err := cmd.CombinedOutput()
	if err != nil && command != "grep" {
		t.Fatalf("%s %v: %v\n%s", command, args, err, out)
	}
	return string(out)
}
