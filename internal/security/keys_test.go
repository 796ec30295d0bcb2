package security

import (
	"bytes"
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var quiet = slog.New(slog.DiscardHandler)

// cluster is a directory as `certs init` makes it.
func cluster(t *testing.T, now time.Time) (string, *Authority) {
	t.Helper()
	dir := t.TempDir()
	a, made, err := OpenAuthority(filepath.Join(dir, "ca"), "job", now)
	if err != nil || !made {
		t.Fatal(made, err)
	}
	for _, role := range Roles() {
		if made, err := a.Issue(filepath.Join(dir, string(role)), role, 90*24*time.Hour); err != nil || !made {
			t.Fatal(made, err)
		}
	}
	return dir, a
}

// TestRenewedFilesAreTaken: by content, while connections go on; files that cannot be used change nothing, are named
// once and counted.
func TestRenewedFilesAreTaken(t *testing.T) {
	dir, a := cluster(t, time.Now())
	at := files(dir, Worker)
	k, err := Load(at, Identity{Worker, "job"})
	if err != nil {
		t.Fatal(err)
	}
	address := serve(t, k)
	peer, err := Load(files(dir, Coordinator), Identity{Coordinator, "job"})
	if err != nil {
		t.Fatal(err)
	}
	works := func(when string) {
		t.Helper()
		if err := call(t, address, Over(peer).Options(Worker)...); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	said := k.look(log, "")
	works("unchanged")
	if text.Len() > 0 {
		t.Errorf("unchanged files: %s", text.Bytes())
	}
	first := k.set.Load()
	content := map[string][]byte{}
	for _, name := range []string{at.CA, at.Cert, at.Key} {
		if content[name], err = os.ReadFile(name); err != nil {
			t.Fatal(err)
		}
	}
	other, err := os.ReadFile(files(dir, Metrics).Cert)
	if err != nil {
		t.Fatal(err)
	}
	otherKey, err := os.ReadFile(files(dir, Metrics).Key)
	if err != nil {
		t.Fatal(err)
	}
	foreign := authority(t, "job")
	for i, broken := range []struct {
		names string
		file  map[string][]byte
	}{
		{"private key does not match", map[string][]byte{at.Key: otherKey}},
		{"expected worker.job", map[string][]byte{at.Cert: other, at.Key: otherKey}},
		{"failed to find", map[string][]byte{at.Cert: []byte("no PEM")}},
		{"vouches for", map[string][]byte{at.CA: foreign.bundle}},
		{"no certificate of an authority", map[string][]byte{at.CA: nil}},
		{"no such file", map[string][]byte{at.CA: {}}},
	} {
		for name, b := range broken.file {
			write(t, name, b)
			if broken.names == "no such file" {
				_ = os.Remove(name)
			}
		}
		said = k.look(log, said)
		said = k.look(log, said)
		if !strings.Contains(said, broken.names) || k.set.Load() != first || k.Failures() != int64(i+1) ||
			strings.Count(text.String(), "level=WARN") != i+1 {
			t.Errorf("%s: said %q, %d failures\n%s", broken.names, said, k.Failures(), text.Bytes())
		}
		works(broken.names)
		for name, b := range content {
			write(t, name, b)
		}
	}
	if strings.Contains(text.String(), "PRIVATE") {
		t.Errorf("the log holds a key:\n%s", text.Bytes())
	}
	_ = os.Remove(at.Cert)
	if made, err := a.Issue(filepath.Dir(at.Cert), Worker, time.Hour); err != nil || !made {
		t.Fatal(made, err)
	}
	if said = k.look(log, said); said != "" || k.set.Load() == first {
		t.Errorf("renewed files are not in use: %s", said)
	}
	works("renewed")
}

func write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestTimesAreNamed: an expired certificate, and a clock that is wrong, are what the error says.
func TestTimesAreNamed(t *testing.T) {
	made := time.Now()
	dir, _ := cluster(t, made)
	for _, c := range []struct {
		now   time.Time
		names string
	}{{made.Add(100 * 24 * time.Hour), "expired at"}, {made.Add(-2 * time.Hour), "clocks wrong"}} {
		k := &Keys{files: files(dir, Worker), want: Identity{Worker, "job"}, Now: func() time.Time { return c.now }}
		if _, err := k.read(); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("own certificate: %v, want %q", err, c.names)
		}
	}
	// the other end's: seen in the handshake
	server := authority(t, "job")
	late := &Keys{want: Identity{Worker, "job"}, Now: func() time.Time { return made.Add(-2 * time.Hour) }}
	leaf := forged(t, server, func(*x509.Certificate) {})
	parsed, err := x509.ParseCertificate(leaf.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(server.cert)
	_, err = parsed.Verify(x509.VerifyOptions{Roots: roots, CurrentTime: late.Now()})
	if err := late.explain(err); err == nil || !strings.Contains(err.Error(), "clocks wrong") {
		t.Errorf("another's certificate: %v", err)
	}
	if late.explain(nil) != nil {
		t.Error("no error was explained")
	}
	var text bytes.Buffer
	log := slog.New(slog.NewTextHandler(&text, nil))
	said := warnExpiry(log, "", parsed, parsed.NotAfter.Add(-time.Minute))
	said = warnExpiry(log, said, parsed, parsed.NotAfter.Add(-time.Second))
	warnExpiry(log, said, parsed, parsed.NotAfter.Add(time.Second))
	if n := strings.Count(text.String(), "level=WARN"); n != 2 || !strings.Contains(text.String(), "has expired") {
		t.Errorf("%d warnings:\n%s", n, text.Bytes())
	}
}

// TestCertificatesAreRenewedInTime: not while most of their time is left; the authority before stays in the bundle, so
// that both sides of its change trust each other.
func TestCertificatesAreRenewedInTime(t *testing.T) {
	made := time.Now()
	dir, a := cluster(t, made)
	if _, again, err := OpenAuthority(filepath.Join(dir, "ca"), "job", made.Add(time.Hour)); err != nil || again {
		t.Errorf("the authority was made again: %v", err)
	}
	for i, want := range []bool{false, true, false} {
		a.now = made.Add(time.Duration(50+11*i) * 24 * time.Hour)
		if renewed, err := a.Issue(filepath.Join(dir, "worker"), Worker, 90*24*time.Hour); err != nil ||
			renewed != want {
			t.Errorf("after %v: renewed %v, %v; want %v", a.now.Sub(made), renewed, err, want)
		}
	}
	old, err := Load(files(dir, Coordinator), Identity{Coordinator, "job"})
	if err != nil {
		t.Fatal(err)
	}
	later := made.Add(authorityLife * 3 / 4)
	next, again, err := OpenAuthority(filepath.Join(dir, "ca"), "job", later)
	if err != nil || !again || bytes.Count(next.bundle, []byte("BEGIN")) != 2 {
		t.Fatalf("after three quarters of its time: made %v, %v", again, err)
	}
	next.now = made // this machine's clock, for the handshake
	both := t.TempDir()
	next.cert.NotBefore = made
	before := *a
	before.now, before.bundle = made, next.bundle
	if _, err := before.Issue(both, Worker, time.Hour); err != nil {
		t.Fatal(err)
	}
	k, err := Load(FilesIn(both), Identity{Worker, "job"})
	if err != nil {
		t.Fatal(err)
	}
	if err := call(t, serve(t, k), Over(old).Options(Worker)...); err != nil {
		t.Errorf("old authority and bundle: %v", err)
	}
	if _, _, err := OpenAuthority(filepath.Join(dir, "ca"), "another", made); err == nil ||
		!strings.Contains(err.Error(), "another job") {
		t.Errorf("the authority of a job vouches for another: %v", err)
	}
	for _, name := range []string{"ca/ca.key", "worker/key.pem", "worker/cert.pem"} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", name, info.Mode(), err)
		}
	}
	if _, err := Show(filepath.Join(dir, "worker/key.pem"), made); err == nil {
		t.Error("a key was shown as a certificate")
	}
	if s, err := Show(files(dir, Worker).Cert, made.Add(200*24*time.Hour)); err != nil ||
		s.Name != "worker.job.evenweave.internal" || !strings.Contains(s.Problem, "expired") {
		t.Errorf("%+v, %v", s, err)
	}
}

// FuzzFiles: no content of the three files causes a panic.
func FuzzFiles(f *testing.F) {
	dir := f.TempDir()
	a, err := newAuthority("job", "job"+domain, time.Now())
	if _, again := a.Issue(dir, Worker, time.Hour); err != nil || again != nil {
		f.Fatal(errors.Join(err, again))
	}
	var seed [3][]byte
	at := FilesIn(dir)
	for i, name := range []string{at.CA, at.Cert, at.Key} {
		if seed[i], err = os.ReadFile(name); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(seed[0], seed[1], seed[2])
	f.Add(seed[1], seed[0], seed[2])
	f.Add([]byte(nil), []byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), seed[2])
	f.Fuzz(func(t *testing.T, ca, cert, key []byte) {
		at := FilesIn(t.TempDir())
		write(t, at.CA, ca)
		write(t, at.Cert, cert)
		write(t, at.Key, key)
		k, err := Load(at, Identity{Worker, "job"})
		if err == nil && k.NotAfter().Before(time.Now()) {
			t.Error("an expired certificate was taken")
		}
		_, _ = Show(at.CA, time.Now())
	})
}
