// Package setup tests the script that fetches the plug-in and the data.
package setup

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

func script(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("setup.sh")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// function is the text of a function of the script.
func function(t *testing.T, name string) string {
	t.Helper()
	text := regexp.MustCompile(`(?ms)^` + name + `\(\) \{.*?^?\}$`).FindString(script(t))
	if text == "" {
		t.Fatalf("setup.sh has no function %s", name)
	}
	return text + "\n"
}

// Only a file's contents count, not its time or a stamp.
func TestVerified(t *testing.T) {
	const good = "contents"
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte(good)))
	functions := function(t, "have") + function(t, "sha256s") + function(t, "sha256") + function(t, "verified")
	for name, c := range map[string]struct {
		put  func(path string) error
		good bool
	}{
		"right":    {func(path string) error { return os.WriteFile(path, []byte(good), 0o600) }, true},
		"wrong":    {func(path string) error { return os.WriteFile(path, []byte("other"), 0o600) }, false},
		"none":     {func(string) error { return nil }, false},
		"a folder": {func(path string) error { return os.Mkdir(path, 0o700) }, false},
		"a link": {func(path string) error {
			return errors.Join(os.WriteFile(path+".real", []byte(good), 0o600), os.Symlink(path+".real", path))
		}, false},
		"wrong, older than a stamp that says right": {func(path string) error {
			stamp := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".sha256")
			return errors.Join(os.WriteFile(path, []byte("planted."), 0o600),
				os.Chtimes(path, time.Time{}, time.Unix(1, 0)),
				os.WriteFile(stamp, []byte(sum+"\n"), 0o600))
		}, false},
	} {
		path := filepath.Join(t.TempDir(), "file")
		if err := c.put(path); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("sh", "-euc", functions+`verified "$1" "$2"`, "sh", path, sum).CombinedOutput()
		if (err == nil) != c.good {
			t.Errorf("%s: %v\n%s", name, err, out)
		}
	}
}

// A download or an archive of any size leaves a file of the largest expected size and one byte at most.
func TestUnpackingIsBounded(t *testing.T) {
	most := regexp.MustCompile(`(?m)^most=(\d+)$`).FindStringSubmatch(script(t))
	if most == nil {
		t.Fatal("setup.sh names no largest size")
	}
	out, err := exec.Command("sh", "-euc",
		"most="+most[1]+"\n"+function(t, "bounded")+`bounded head -c 100000000 /dev/zero | wc -c`).Output()
	var n, want int
	if _, scanErr := fmt.Sscan(string(out)+" "+most[1], &n, &want); err != nil || scanErr != nil || n != want+1 {
		t.Errorf("%q, %v, %v; want %d", out, err, scanErr, want+1)
	}
}

// Python loads no modules from the working directory, and sudo needs permission.
func TestNothingUnasked(t *testing.T) {
	for i, line := range strings.Split(script(t), "\n") {
		code, _, _ := strings.Cut(line, "#")
		if strings.Contains(code, "python") && strings.Contains(code, " -m ") &&
			!strings.Contains(code, "python3 -I -m ") {
			t.Errorf("setup.sh:%d: not isolated: %s", i+1, line)
		}
	}
	fake := t.TempDir()
	for name, text := range map[string]string{"id": "echo 1000", "sudo": "echo sudo was run; exit 1"} {
		if err := os.WriteFile(filepath.Join(fake, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for leave, ran := range map[string]bool{"": false, "0": false, "1": true} {
		cmd := exec.Command("sh", "-uc", "work="+fake+"\n"+function(t, "have")+function(t, "warn")+function(t,
			"as_root")+"as_root true")
		cmd.Env = []string{"PATH=" + fake + ":" + os.Getenv("PATH"), "EVENWEAVE_SUDO=" + leave}
		out, err := cmd.CombinedOutput()
		if strings.Contains(string(out), "sudo was run") != ran || err == nil || !ran &&
			!strings.Contains(string(out), `run "sudo true"`) {
			t.Errorf("EVENWEAVE_SUDO=%q: %v\n%s", leave, err, out)
		}
	}
}
