package security

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync/atomic"
	"time"

	"evenweave/internal/regular"
)

const (
	maxPEM    = 1 << 20 // bytes of a file
	lookEvery = 5 * time.Second
)

// Files name the PEM files of a process's identity: the authorities that it trusts, its certificate, its private key.
type Files struct{ CA, Cert, Key string }

// Keys are what Files hold. They are read again when the content changes; content that cannot be used is ignored. Keys
// are safe for concurrent use.
type Keys struct {
	Every    time.Duration    // how often Watch looks at the files
	Now      func() time.Time // the clock that certificates are valid by; set both before use
	files    Files
	want     Identity
	set      atomic.Pointer[set]
	waits    atomic.Bool         // a renewed key is used only after Use has named it
	next     atomic.Pointer[set] // the one that waits
	changed  chan struct{}       // a signal: a renewed key has been read, or is used from now on
	failures atomic.Int64
}

// set is one state of the files. It never changes.
type set struct {
	pair    tls.Certificate
	roots   *x509.CertPool
	content [sha256.Size]byte
}

// Load reads the files, which must hold the identity.
func Load(files Files, want Identity) (*Keys, error) {
	k := &Keys{Every: lookEvery, files: files, want: want, Now: time.Now, changed: make(chan struct{}, 1)}
	s, err := k.read()
	if err != nil {
		return nil, err
	}
	k.set.Store(s)
	return k, nil
}

// NotAfter is when the certificate in use expires.
func (k *Keys) NotAfter() time.Time { return k.set.Load().pair.Leaf.NotAfter }

// Failures counts changes of the files that could not be used.
func (k *Keys) Failures() int64 { return k.failures.Load() }

// Watch takes renewed files until ctx ends; the caller owns the goroutine. It compares the content,
// because what mounts files often swaps a link. It logs each new cause of a failure once.
func (k *Keys) Watch(ctx context.Context, log *slog.Logger) {
	tick := time.NewTicker(k.Every)
	defer tick.Stop()
	warning := ""
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			warning = k.look(log, warning)
		}
	}
}

// look reads the files once and returns the warning that holds about them. It logs it unless it is the one before.
func (k *Keys) look(log *slog.Logger, before string) string {
	s, err := k.read()
	old := k.set.Load()
	switch {
	case err == nil && s.content == old.content:
		if next := k.next.Load(); next != nil && k.Now().After(old.pair.Leaf.NotAfter) { // better than none
			k.Use([]string{keyOf(next.pair.Leaf)})
		}
		return warnExpiry(log, before, old.pair.Leaf, k.Now())
	case err == nil && k.waits.Load() && keyOf(s.pair.Leaf) != keyOf(old.pair.Leaf) &&
		k.Now().Before(old.pair.Leaf.NotAfter):
		k.next.Store(s)
		k.set.Store(&set{pair: old.pair, roots: s.roots, content: s.content})
		k.signal()
		log.Info("renewed certificate: it is used once its key is registered", "file", k.files.Cert)
		return ""
	case err == nil:
		k.next.Store(nil)
		k.set.Store(s)
		k.signal()
		log.Info("renewed certificate in use", "file", k.files.Cert, "not_after", s.pair.Leaf.NotAfter)
		return ""
	case err.Error() != before:
		k.failures.Add(1)
		log.Warn("the certificate files cannot be used: going on with the ones before", "err", err, "not_after",
			old.pair.Leaf.NotAfter)
	}
	return err.Error()
}

// Wait keeps a renewed key out of use until its member's record, or the world, names it: see Use. Call it before Watch.
func (k *Keys) Wait() { k.waits.Store(true) }

// Use takes the renewed key that waits into use, if it is one of those that others know by now.
func (k *Keys) Use(known []string) {
	next := k.next.Load()
	if next == nil || !slices.Contains(known, keyOf(next.pair.Leaf)) || !k.next.CompareAndSwap(next, nil) {
		return
	}
	k.set.Store(next)
	k.signal()
}

// Changed gets a signal when Registered has changed.
func (k *Keys) Changed() <-chan struct{} { return k.changed }

func (k *Keys) signal() {
	select {
	case k.changed <- struct{}{}:
	default:
	}
}

// warnExpiry returns a warning if the certificate in use has expired or soon will. It logs it unless it is the one
// before.
func warnExpiry(log *slog.Logger, before string, leaf *x509.Certificate, now time.Time) string {
	if !soon(leaf, now) {
		return ""
	}
	text := "the certificate expires soon: renew it"
	if !now.Before(leaf.NotAfter) {
		text = "the certificate has expired: new connections fail; renew it"
	}
	if text != before {
		log.Warn(text, "not_after", leaf.NotAfter)
	}
	return text
}

// read returns the set that the files hold now.
func (k *Keys) read() (*set, error) {
	var content [3][]byte
	for i, name := range []string{k.files.CA, k.files.Cert, k.files.Key} {
		var err error
		if content[i], err = regular.Read(name, maxPEM); err != nil {
			return nil, err
		}
	}
	s := &set{roots: x509.NewCertPool(), content: sha256.Sum256(bytes.Join(content[:], []byte{0}))}
	if old := k.set.Load(); old != nil && old.content == s.content {
		return old, nil
	}
	if !s.roots.AppendCertsFromPEM(content[0]) {
		return nil, fmt.Errorf("%s holds no certificate of an authority: expected PEM", k.files.CA)
	}
	pair, err := tls.X509KeyPair(content[1], content[2])
	if err != nil {
		return nil, fmt.Errorf("%s and %s: %w", k.files.Cert, k.files.Key, err)
	}
	s.pair = pair
	return s, k.check(s)
}

// check says why a set cannot be used by this process.
func (k *Keys) check(s *set) error {
	leaf := s.pair.Leaf
	if _, ok := leaf.PublicKey.(*ecdsa.PublicKey); !ok {
		return fmt.Errorf("%s: a key of type %T: expected ECDSA", k.files.Cert, leaf.PublicKey)
	}
	i, err := identify(leaf)
	if err != nil {
		return fmt.Errorf("%s: %w", k.files.Cert, err)
	}
	if i != k.want {
		return fmt.Errorf("%s is of %s: expected %s", k.files.Cert, i.Name(), k.want.Name())
	}
	if err := inTime(leaf, k.Now()); err != nil {
		return fmt.Errorf("%s: %w", k.files.Cert, err)
	}
	for _, usage := range []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth} {
		if _, err := leaf.Verify(x509.VerifyOptions{Roots: s.roots, Intermediates: intermediates(s.pair),
			CurrentTime: k.Now(), KeyUsages: []x509.ExtKeyUsage{usage}}); err != nil {
			return fmt.Errorf("%s is not one that %s vouches for: %w", k.files.Cert, k.files.CA, err)
		}
	}
	return nil
}

func intermediates(pair tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, der := range pair.Certificate[1:] {
		if c, err := x509.ParseCertificate(der); err == nil {
			pool.AddCert(c)
		}
	}
	return pool
}

// inTime names a certificate that has expired, and a clock that seems wrong.
func inTime(c *x509.Certificate, now time.Time) error {
	const form = time.RFC3339
	switch {
	case now.After(c.NotAfter):
		return fmt.Errorf("the certificate of %s expired at %s, and this machine's clock says %s: renew it", shown(c),
			c.NotAfter.Format(form), now.UTC().Format(form))
	case now.Before(c.NotBefore):
		return fmt.Errorf("the certificate of %s is valid from %s on, and this machine's clock says %s: is one of the "+
			"clocks wrong?", shown(c), c.NotBefore.Format(form), now.UTC().Format(form))
	}
	return nil
}

// explain adds to an error of verification the times that it is about.
func (k *Keys) explain(err error) error {
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	if ok && invalid.Reason == x509.Expired && invalid.Cert != nil {
		if timed := inTime(invalid.Cert, k.Now()); timed != nil {
			return fmt.Errorf("%w (%w)", timed, err)
		}
	}
	return err
}

// firstCertificate decodes the first certificate of a PEM file.
func firstCertificate(content []byte) (*x509.Certificate, error) {
	for {
		var block *pem.Block
		if block, content = pem.Decode(content); block == nil {
			return nil, errors.New("it holds no certificate: expected PEM")
		}
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
}
