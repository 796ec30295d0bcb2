package cli

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spf13/cobra"

	"evenweave/internal/security"
)

// renewal is `certs init --every` in a bubble of virtual time, and what it prints.
type renewal struct {
	dir  string
	done chan error
	stop context.CancelFunc
	text lockedText
}

const (
	shortLife = 90 * time.Second
	looks     = 10 * time.Second
	long      = 20 * time.Minute
)

func startRenewal(t *testing.T) *renewal {
	r := &renewal{dir: filepath.Join(t.TempDir(), "certs"), done: make(chan error, 1)}
	c := initFlags{certsFlags: certsFlags{dir: r.dir, job: "mine", life: shortLife}, every: looks}
	if err := c.check(); err != nil {
		t.Fatal(err)
	}
	cmd := &cobra.Command{}
	cmd.SetErr(&r.text)
	ctx, stop := context.WithCancel(t.Context())
	r.stop = stop
	go func() { r.done <- c.run(ctx, cmd) }()
	synctest.Wait()
	return r
}

// TestCertificatesOutliveAnyJob: with --every, the processes of each role have a certificate that is good for a while
// at any moment, although one lives for 90 s. Each is made when it is time and not before, a spoilt one at the next
// look, and no process ever meets half a set. It ends at once when asked to.
func TestCertificatesOutliveAnyJob(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := startRenewal(t)
		ctx, stop := context.WithCancel(t.Context())
		var watching sync.WaitGroup
		processes := map[security.Role]*security.Keys{}
		var warned lockedText
		for _, role := range security.Roles() {
			k, err := security.Load(security.FilesIn(filepath.Join(r.dir, string(role))),
				security.Identity{Role: role, Job: "mine"})
			if err != nil {
				t.Fatal(err)
			}
			processes[role] = k
			watching.Go(func() { k.Watch(ctx, slog.New(slog.NewTextHandler(&warned, nil))) })
		}
		begun := time.Now()
		for time.Since(begun) < long {
			time.Sleep(time.Second)
			synctest.Wait()
			for role, k := range processes {
				// A third, less the time between two looks and that until a process takes what is new.
				if left := time.Until(k.NotAfter()); left < shortLife/3-looks-5*time.Second {
					t.Fatalf("after %v the certificate of %s has %v left", time.Since(begun), role, left)
				}
			}
		}
		// Looks are every 10 s; the first with less than 30 s left comes 70 s after a certificate was made.
		if made, want := strings.Count(r.text.String(), "for role worker"), 1+int(long/(70*time.Second)); made != want {
			t.Errorf("%d certificates of a worker in %v, want %d", made, long, want)
		}
		if n := strings.Count(warned.String(), "level=WARN"); n != 0 {
			t.Errorf("%d warnings of processes:\n%s", n, warned.String())
		}
		spoilt := security.FilesIn(filepath.Join(r.dir, "worker"))
		if err := os.WriteFile(spoilt.Key, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(looks)
		synctest.Wait()
		if _, err := security.Load(spoilt, security.Identity{Role: security.Worker, Job: "mine"}); err != nil {
			t.Errorf("a spoilt key stays: %v", err)
		}
		stop()
		watching.Wait()
		asked := time.Now()
		r.stop()
		if err := <-r.done; err != nil || time.Since(asked) != 0 {
			t.Errorf("asked to end, it ended after %v with %v", time.Since(asked), err)
		}
	})
}

// TestARenewalThatFailsIsSeen: it ends, naming what is wrong; then certificates that run out are what `certs show`
// says, with an error, so that it can be a health check.
func TestARenewalThatFailsIsSeen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r, begun := startRenewal(t), time.Now()
		show := func() (string, error) { return said(t, "certs", "show", "--dir", r.dir) }
		if out, err := show(); err != nil || strings.Count(out, "1m30s left") != len(security.Roles()) {
			t.Errorf("%v\n%s", err, out)
		}
		key := filepath.Join(r.dir, "ca", "ca.key")
		if err := os.WriteFile(key, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := <-r.done; err == nil || !strings.Contains(err.Error(), key) {
			t.Errorf("it ended with %v, want an error with %s", err, key)
		}
		for _, at := range []struct {
			left time.Duration
			says string
		}{{shortLife - looks, "1m20s left"}, {5 * time.Second, "expires soon"}, {-5 * time.Second, "expired at"}} {
			time.Sleep(shortLife - at.left - time.Since(begun))
			if out, err := show(); (err != nil) != (at.left < looks) || !strings.Contains(out, at.says) {
				t.Errorf("with %v left: want %q; %v\n%s", at.left, at.says, err, out)
			}
		}
		r.stop()
	})
}

// TestTwoRenewalsTakeTurns: one that finds another at work in the directory waits for it, and gives it up by name.
func TestTwoRenewalsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "certs")
		release, err := security.HoldAuthority(filepath.Join(dir, "ca"))
		if err != nil {
			t.Fatal(err)
		}
		c := initFlags{certsFlags: certsFlags{dir: dir, job: "mine", life: shortLife}}
		cmd := &cobra.Command{}
		cmd.SetErr(new(bytes.Buffer))
		if err := c.run(t.Context(), cmd); err == nil || !strings.Contains(err.Error(), "another `evenweave certs`") {
			t.Errorf("beside another: %v", err)
		}
		time.AfterFunc(time.Second, release)
		if err := c.run(t.Context(), cmd); err != nil {
			t.Errorf("after another: %v", err)
		}
	})
}

// lockedText is text that several goroutines write.
type lockedText struct {
	mu   sync.Mutex
	text bytes.Buffer
}

// Write implements io.Writer.
func (l *lockedText) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

// String is the text up to now.
func (l *lockedText) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}
