package local_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"math/big"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// knock tries each kind of stranger at each port: no word but a refusal comes, and from a page none to a page of
// another origin. A worker of the job gets an answer there, so that it is not the port that is silent.
func knock(t *testing.T, a authority, ports map[string]string) {
	t.Helper()
	good := forge(t, a, func(*x509.Certificate) {})
	strangers := map[string]*tls.Config{
		"no certificate": {},
		"TLS 1.2":        {Certificates: good, MaxVersion: tls.VersionTLS12},
		"self-signed":    {Certificates: selfSigned(t)},
		"another authority's": {Certificates: forge(t, newAuthority(t, "test"),
			func(*x509.Certificate) {})},
		"another job's": {Certificates: forge(t, newAuthority(t, "other"), func(c *x509.Certificate) {
			c.DNSNames = []string{"worker.other.evenweave.internal"}
		})},
		"another job's of this authority": {Certificates: forge(t, a, func(c *x509.Certificate) {
			c.DNSNames = []string{"worker.other.evenweave.internal"}
		})},
		"expired": {Certificates: forge(t, a, func(c *x509.Certificate) {
			c.NotAfter = time.Now().Add(-time.Minute)
		})},
		"not yet valid": {Certificates: forge(t, a, func(c *x509.Certificate) {
			c.NotBefore = time.Now().Add(time.Minute)
		})},
		"only a server's": {Certificates: forge(t, a, func(c *x509.Certificate) {
			c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
		})},
	}
	for name, address := range ports {
		plainText(t, name, address)
		if name == "page" { // it is plain, for callers that know the secret in its address
			for _, page := range pages {
				if answer, err := asPage(nil, "http://"+address+page); err == nil && answer.StatusCode < 400 {
					t.Errorf("a page of another origin gets %s%s: %s", name, page, answer.Status)
				}
			}
			continue
		}
		for caller, config := range strangers {
			for _, page := range pages {
				answer, err := asPage(config, "https://"+address+page)
				// pages are open to a caller without a certificate, which gets none
				if none := name == "pages" && caller == "no certificate"; err == nil &&
					(!none || answer.StatusCode < 400) || err != nil && none {
					t.Errorf("%s at %s%s: %v, %v", caller, name, page, answer, err)
				}
			}
		}
		if answer, err := asPage(&tls.Config{Certificates: good}, "https://"+address+"/metrics"); err != nil ||
			answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("a worker at %s: %v, %v", name, answer, err)
		}
	}
}

var pages = []string{"/status", "/v3/kv/range", "/metrics", "/health", "/checkpoint", "/page/x/"}

// plainText begins HTTP/2 without TLS.
func plainText(t *testing.T, name, address string) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(deadline))
	_, _ = io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
	got, _ := io.ReadAll(io.LimitReader(c, 1<<10))
	if text := string(got); strings.Contains(text, "\x00\x00") && len(text) > 100 {
		t.Errorf("%s answers plain text with %q", name, text)
	}
}

// asPage asks as a web page of another origin does whose name has been made to lead here.
func asPage(config *tls.Config, at string) (*http.Response, error) {
	over := &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true}
	if config != nil {
		over.TLSClientConfig = config.Clone()
		over.TLSClientConfig.InsecureSkipVerify = true
		if all := config.Certificates; len(all) > 0 { // shown to a server that trusts another authority too
			over.TLSClientConfig.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				return &all[0], nil
			}
		}
	}
	r, err := http.NewRequest(http.MethodPost, at, strings.NewReader(`{"key":"L2V2"}`))
	if strings.HasSuffix(at, "/x/") || strings.HasSuffix(at, "metrics") {
		r, err = http.NewRequest(http.MethodGet, at, nil)
	}
	if err != nil {
		return nil, err
	}
	r.Host = "rebound.example"
	r.Header.Set("Origin", "https://evil.example")
	r.Header.Set("Content-Type", "text/plain")
	answer, err := (&http.Client{Timeout: deadline, Transport: over}).Do(r)
	if err == nil {
		_ = answer.Body.Close()
	}
	return answer, err
}

// template is a worker's certificate of the job.
func template() *x509.Certificate {
	return &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"worker.test.evenweave.internal"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
}

// forge is a certificate that an authority has signed, of whatever is asked.
func forge(t *testing.T, by authority, change func(*x509.Certificate)) []tls.Certificate {
	t.Helper()
	ca := filepath.Join(by.dir, "ca")
	pair, err := tls.LoadX509KeyPair(filepath.Join(ca, "ca.pem"), filepath.Join(ca, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	leaf := template()
	change(leaf)
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, leaf, pair.Leaf, key.Public(), pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
}

func selfSigned(t *testing.T) []tls.Certificate {
	t.Helper()
	key := newKey(t)
	der, err := x509.CreateCertificate(rand.Reader, template(), template(), key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
