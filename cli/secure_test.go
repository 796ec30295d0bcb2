package cli

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave/internal/security"
)

// TestPlainTCPNeedsToBeAskedFor: a cluster over TCP, loopback too, has certificates or is called insecure; what cannot
// go together is bad usage. A cluster at a socket needs neither.
func TestPlainTCPNeedsToBeAskedFor(t *testing.T) {
	dir := t.TempDir()
	a, _, err := security.OpenAuthority(filepath.Join(dir, "ca"), "job", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := a.Issue(dir, security.Worker, time.Hour); err != nil {
		t.Fatal(err)
	}
	good := security.FilesIn(dir)
	worker, operator := []security.Role{security.Worker}, []security.Role{security.Operator, security.Coordinator}
	for _, c := range []struct {
		etcd  string
		flags secureFlags
		roles []security.Role
		names string // of the error; "": none
		open  bool
	}{
		{"http://127.0.0.1:2379", secureFlags{}, worker, "--insecure", false},
		{"https://10.0.0.1:2379", secureFlags{}, worker, "--tls-ca", false},
		{"http://127.0.0.1:2379", secureFlags{insecure: true}, worker, "", true},
		{"https://10.0.0.1:2379", secureFlags{files: good}, worker, "", false},
		{"http://10.0.0.1:2379", secureFlags{files: good}, worker, "https://", false},
		{"https://10.0.0.1:2379", secureFlags{files: good, insecure: true}, worker, "choose one", false},
		{"https://10.0.0.1:2379", secureFlags{files: security.Files{CA: good.CA}}, worker, "--tls-key", false},
		{"https://10.0.0.1:2379", secureFlags{files: good}, operator, "expected operator.job", false},
		{"https://10.0.0.1:2379", secureFlags{files: good}, append(operator, security.Worker), "", false},
		{"unix:/run/evenweave/etcd.sock", secureFlags{}, worker, "", false},
		{"unix:/run/evenweave/etcd.sock", secureFlags{files: good}, worker, "socket", false},
	} {
		over, err := c.flags.transport([]string{c.etcd}, "job", c.roles...)
		if c.names != "" {
			if err == nil || !strings.Contains(err.Error(), c.names) {
				t.Errorf("%s %+v: %v, want an error with %q", c.etcd, c.flags, err, c.names)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s %+v: %v", c.etcd, c.flags, err)
			continue
		}
		var said bytes.Buffer
		warnInsecure(slog.New(slog.NewTextHandler(&said, nil)), over)
		if warned := strings.Contains(said.String(), "--insecure"); over.Insecure() != c.open || warned != c.open {
			t.Errorf("%s: open %v, said %q", c.etcd, over.Insecure(), said.String())
		}
	}
	for _, args := range [][]string{{"worker", "--etcd", "http://127.0.0.1:1"},
		{"status", "--etcd", "http://127.0.0.1:1"},
		{"worker", "--etcd", "http://127.0.0.1:1", "--insecure", "--https", "127.0.0.1:0"}} {
		if _, err := said(t, args...); exitCode(err) != exitUsage {
			t.Errorf("%v: %v, want exit code %d", args, err, exitUsage)
		}
	}
	var out bytes.Buffer
	snapshot{Insecure: true}.show(&out)
	if !strings.Contains(out.String(), "--insecure") {
		t.Errorf("status does not say that there is no protection:\n%s", out.Bytes())
	}
}

// said is what a command line prints.
func said(t *testing.T, args ...string) (string, error) {
	t.Helper()
	root := commands(t)
	var out bytes.Buffer
	root.SetOut(&out)
	root.SetErr(&out)
	root.SetArgs(args)
	err := root.Execute()
	return out.String(), err
}

// TestCertsMakesWhatTheProcessesTake, renews nothing before its time, and shows it.
func TestCertsMakesWhatTheProcessesTake(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	dir := filepath.Join(t.TempDir(), "certs")
	run := func(args ...string) (string, error) {
		return said(t, append([]string{"certs"}, args...)...)
	}
	if out, err := run("init", "--dir", dir, "--job", "mine"); err != nil || strings.Count(out, "made") != 6 {
		t.Errorf("%v\n%s", err, out)
	}
	if out, err := run("init", "--dir", dir, "--job", "mine"); err != nil || out != "" {
		t.Errorf("again: %v\n%s", err, out)
	}
	for _, role := range security.Roles() {
		files := security.FilesIn(filepath.Join(dir, string(role)))
		if _, err := security.Load(files, security.Identity{Role: role, Job: "mine"}); err != nil {
			t.Error(err)
		}
	}
	if out, err := run("show", "--dir", dir); err != nil || !strings.Contains(out, "worker.mine.evenweave.internal") ||
		!strings.Contains(out, "89 days left") {
		t.Errorf("%v\n%s", err, out)
	}
	for _, made := range []int{1, 0} {
		out, err := run("init", "--dir", dir, "--job", "mine", "--etcd-peers", "peers")
		if err != nil || strings.Count(out, "made") != made {
			t.Errorf("a set for etcd's nodes: %v\n%s", err, out)
		}
	}
	shared := filepath.Join(t.TempDir(), "certs") // of an authority of any job: the next takes the place of the first
	for next, made := range map[string]int{"second": 6, "third": 6} {
		_, again := os.Stat(shared)
		if again == nil {
			made-- // the authority is there
		}
		if out, err := run("init", "--dir", shared, "--job", next, "--any-job"); err != nil ||
			strings.Count(out, "made") != made {
			t.Errorf("%v\n%s", err, out)
		}
		if _, err := security.Load(security.FilesIn(filepath.Join(shared, "worker")),
			security.Identity{Role: security.Worker, Job: next}); err != nil {
			t.Error(err)
		}
	}
	extra := filepath.Join(t.TempDir(), "w")
	if out, err := run("issue", "--dir", dir, "--job", "mine", "--out", extra); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if _, err := security.Load(security.FilesIn(extra), security.Identity{Role: security.Worker,
		Job: "mine"}); err != nil {
		t.Error(err)
	}
	for _, bad := range [][]string{{"init", "--job", "a/b"}, {"init", "--life", "1s"},
		{"init", "--dir", dir, "--every", "1s"}, {"init", "--dir", dir, "--every", "1h", "--life", "3h"},
		{"init", "--dir", dir, "--secrets", "x"},
		{"init", "--dir", dir, "--etcd-peers", "*.x"},
		{"issue", "--role", "root", "--out", "x"},
		{"issue"}, {"init", "--dir", dir, "--job", "other"}, {"show", "--dir", t.TempDir()}} {
		if out, err := run(bad...); err == nil {
			t.Errorf("%v: no error\n%s", bad, out)
		}
	}
}
