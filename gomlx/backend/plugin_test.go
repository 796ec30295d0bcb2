package backend

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestOnlyAVerifiedPluginIsLoaded(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir := t.TempDir()
	path := filepath.Join(dir, "plugin.so")
	good := []byte("native code")
	sum := sha256.Sum256(good)
	want := []string{hex.EncodeToString(sum[:])}
	if err := os.WriteFile(path, good, 0o755); err != nil {
		t.Fatal(err)
	}
	for range 2 { // hashed; then by its stamp
		if _, err := verifyPlugin(path, want); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(what, says string) {
		t.Helper()
		if _, err := verifyPlugin(path, want); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, want an error with %q", what, err, says)
		}
	}
	old, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(path, []byte("other code."), 0o755),
		os.Chtimes(path, time.Time{}, old.ModTime())); err != nil {
		t.Fatal(err)
	}
	refused("replaced, with its old time and size", "SHA-256")
	if err := errors.Join(os.WriteFile(path, good, 0o755), os.Chmod(path, 0o757)); err != nil {
		t.Fatal(err)
	}
	refused("writable by all", "mode 0757")
	if err := errors.Join(os.Chmod(path, 0o755), os.Chmod(dir, 0o777)); err != nil {
		t.Fatal(err)
	}
	refused("in a folder writable by all", "mode 0777")
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		if err := os.Chown(path, 65534, 65534); err != nil {
			t.Fatal(err)
		}
		refused("of another user", "belongs to user 65534")
	}
}

// What lies in the working directory is not looked at.
func TestAPlantedPluginIsNotFound(t *testing.T) {
	dir := t.TempDir()
	planted := filepath.Join(dir, ".evenweave", "xla")
	if err := os.MkdirAll(planted, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"cpu", "cuda"} {
		if err := os.WriteFile(filepath.Join(planted, "pjrt_c_api_"+kind+"_plugin.so"), nil, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	for _, kind := range []string{"cpu", "cuda"} {
		if path, _, err := findPlugin(kind); strings.HasPrefix(path, dir) || err != nil &&
			strings.Contains(err.Error(), dir) {
			t.Errorf("found %s, %v", path, err)
		}
	}
}

// A program that was copied to anywhere finds the plug-in in its user's cache, and takes none there that is not pinned.
func TestThePluginOfTheUsersCache(t *testing.T) {
	cache := t.TempDir()
	t.Setenv("XDG_CACHE_HOME", cache)
	dir := filepath.Join(cache, "evenweave", "xla")
	path := filepath.Join(dir, "pjrt_c_api_other_plugin.so") // of a kind that is nowhere else
	if err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(path, []byte("native code"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if found, _, err := findPlugin("other"); found != path || err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("found %q, %v; expected %s, refused by its SHA-256", found, err, path)
	}
}
