package security

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/regular"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	skew          = time.Hour // that the clock of another machine may be slow
	serialBits    = 127
	holdWithin    = 10 * time.Second
)

// The files of a role's directory, and the authority's own.
const (
	caFile, certFile, keyFile = "ca.pem", "cert.pem", "key.pem"
	authorityKey              = "ca.key"
)

// FilesIn are the files of a directory that Issue has written.
func FilesIn(dir string) Files {
	return Files{filepath.Join(dir, caFile), filepath.Join(dir, certFile), filepath.Join(dir, keyFile)}
}

// AuthorityIn are the files of an authority's directory: its certificates and its key.
func AuthorityIn(dir string) Files {
	return Files{Cert: filepath.Join(dir, caFile), Key: filepath.Join(dir, authorityKey)}
}

// Authority vouches for the processes of one job. A process that has its key can pass for any of them.
type Authority struct {
	job    string // its name
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	bundle []byte // its certificate, and the one before, which is still trusted
	now    time.Time
}

// HoldAuthority keeps others from renewing what is in an authority's directory, which it makes, until release.
func HoldAuthority(dir string) (release func(), err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	f, err := regular.Write(filepath.Join(dir, "lock"))
	if err != nil {
		return nil, err
	}
	if err := regular.Lock(f, holdWithin); err != nil {
		return nil, errors.Join(fmt.Errorf("%s is in use by another `evenweave certs` for %v: expected some "+
			"milliseconds; end that one: %w", dir, holdWithin, err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// OpenAuthority reads the authority in a directory, or makes one. made: it is new, alone or beside the one before,
// which has less than a third of its time left.
func OpenAuthority(dir, job string, now time.Time) (a *Authority, made bool, err error) {
	return openAuthority(dir, job, job+domain, now)
}

// OpenAuthorityOfAll is OpenAuthority for one that vouches for any job; what it issues now is for the given one.
func OpenAuthorityOfAll(dir, job string, now time.Time) (a *Authority, made bool, err error) {
	return openAuthority(dir, job, domain[1:], now)
}

// OpenPeerAuthority is OpenAuthority for the nodes of an etcd, which are found by names below a domain of their own and
// prove themselves to each other, whatever the job.
func OpenPeerAuthority(dir, peers string, now time.Time) (a *Authority, made bool, err error) {
	return openAuthority(dir, peers, peers, now)
}

// openAuthority opens an authority for names below a domain.
func openAuthority(dir, job, below string, now time.Time) (a *Authority, made bool, err error) {
	a, err = readAuthority(dir, job, below, now)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	if err == nil && !due(a.cert, authorityLife, now) {
		return a, false, nil
	}
	var before []byte
	if err == nil {
		before = encodeCertificate(a.cert.Raw)
	}
	a, err = newAuthority(job, below, now)
	if err != nil {
		return nil, false, err
	}
	a.bundle = append(a.bundle, before...)
	key, err := encodeKey(a.key)
	if err != nil {
		return nil, false, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, false, err
	}
	files := AuthorityIn(dir)
	return a, true, regular.ReplaceAll(regular.File{Path: files.Key, Content: key},
		regular.File{Path: files.Cert, Content: a.bundle})
}

func readAuthority(dir, job, below string, now time.Time) (*Authority, error) {
	content, err := regular.Read(filepath.Join(dir, caFile), maxPEM)
	if err != nil {
		return nil, err
	}
	cert, err := firstCertificate(content)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(dir, caFile), err)
	}
	if len(cert.PermittedDNSDomains) != 1 || cert.PermittedDNSDomains[0] != below {
		return nil, fmt.Errorf("%s is the authority of another job: expected one of %s; choose another "+
			"directory", filepath.Join(dir, caFile), below)
	}
	name := filepath.Join(dir, authorityKey)
	text, err := regular.Read(name, maxPEM)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, fmt.Errorf("%s holds no key: expected PEM", name)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("%s is not the key of %s", name, filepath.Join(dir, caFile))
	}
	return &Authority{job: job, cert: cert, key: key, bundle: content, now: now}, nil
}

func newAuthority(job, below string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	// It can vouch for names of this job alone, even on a system that trusts it for all names.
	template := &x509.Certificate{Subject: pkix.Name{CommonName: "Evenweave authority of " + job}, IsCA: true,
		BasicConstraintsValid: true, MaxPathLenZero: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		PermittedDNSDomainsCritical: true, PermittedDNSDomains: []string{below},
		NotBefore: now.Add(-skew), NotAfter: now.Add(authorityLife)}
	der, err := sign(template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	return &Authority{job: job, cert: cert, key: key, bundle: encodeCertificate(der), now: now}, err
}

func sign(template, parent *x509.Certificate, public *ecdsa.PublicKey, by *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, err
	}
	template.SerialNumber = serial
	return x509.CreateCertificate(rand.Reader, template, parent, public, by)
}

// Issue writes a key, its certificate for a role and the authority's bundle into a directory, unless what is there is
// good for another third of the life that a new one would have. made: it was written.
func (a *Authority) Issue(dir string, role Role, life time.Duration) (made bool, err error) {
	files := FilesIn(dir)
	bundle, _ := regular.Read(files.CA, maxPEM)
	k := &Keys{files: files, want: Identity{role, a.job}, Now: func() time.Time { return a.now }}
	if s, err := k.read(); err == nil && bytes.Equal(bundle, a.bundle) && !due(s.pair.Leaf, life, a.now) {
		return false, nil
	}
	return true, a.issue(files, leafOf(Identity{role, a.job}, a.now, life))
}

// IssuePeer is Issue for all nodes of an etcd, by an authority of OpenPeerAuthority.
func (a *Authority) IssuePeer(dir string, life time.Duration) (made bool, err error) {
	files := FilesIn(dir)
	bundle, _ := regular.Read(files.CA, maxPEM)
	if pair, err := tls.LoadX509KeyPair(files.Cert, files.Key); err == nil && bytes.Equal(bundle, a.bundle) &&
		!due(pair.Leaf, life, a.now) {
		return false, nil
	}
	leaf := leafOf(Identity{"etcd-peer", a.job}, a.now, life)
	leaf.DNSNames = []string{"*." + a.job}
	return true, a.issue(files, leaf)
}

// leafOf is the certificate of a process, to be signed.
func leafOf(i Identity, now time.Time, life time.Duration) *x509.Certificate {
	return &x509.Certificate{Subject: pkix.Name{CommonName: string(i.Role) + ":" + i.Job}, DNSNames: []string{i.Name()},
		BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		NotBefore:   now.Add(-skew), NotAfter: now.Add(life)}
}

// issue writes a key, the certificate for it, and the authority's bundle.
func (a *Authority) issue(files Files, leaf *x509.Certificate) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	der, err := sign(leaf, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return err
	}
	return files.write(key, encodeCertificate(der), a.bundle)
}

// write writes a process's files, the certificate last: all are there once it is.
func (f Files) write(key *ecdsa.PrivateKey, cert, authorities []byte) error {
	text, err := encodeKey(key)
	if err == nil {
		err = os.MkdirAll(filepath.Dir(f.Cert), 0o700)
	}
	if err != nil {
		return err
	}
	return regular.ReplaceAll(regular.File{Path: f.CA, Content: authorities}, regular.File{Path: f.Key, Content: text},
		regular.File{Path: f.Cert, Content: cert})
}

func encodeCertificate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// due reports whether less than a third is left of the life that is wanted.
func due(c *x509.Certificate, life time.Duration, now time.Time) bool {
	return c.NotAfter.Sub(now) < life/3
}

// soon reports whether a certificate has less than a tenth of its life left. Issue dates it back by skew.
func soon(c *x509.Certificate, now time.Time) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	if life > skew {
		life -= skew
	}
	return c.NotAfter.Sub(now) < life/10
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), err
}

// Shown is what a certificate says.
type Shown struct {
	File      string    `json:"file"`
	Name      string    `json:"name"`
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	Problem   string    `json:"problem,omitempty"`
}

// Show reads the first certificate of a file.
func Show(file string, now time.Time) (Shown, error) {
	content, err := regular.Read(file, maxPEM)
	if err != nil {
		return Shown{}, err
	}
	c, err := firstCertificate(content)
	if err != nil {
		return Shown{}, fmt.Errorf("%s: %w", file, err)
	}
	name := shown(c)
	if c.IsCA {
		name = job.Clean(c.Subject.CommonName)
	}
	s := Shown{File: file, Name: name, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
	if err := inTime(c, now); err != nil {
		s.Problem = err.Error()
	} else if soon(c, now) {
		s.Problem = "it expires soon: renew it"
	}
	return s, nil
}
