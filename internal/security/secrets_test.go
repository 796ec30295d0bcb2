package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// kubernetes is an API that has Secrets of one namespace, and nothing else.
type kubernetes struct {
	mu       sync.Mutex
	secrets  map[string]map[string][]byte
	versions map[string]int
	token    string
	changes  int
}

func (k *kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	k.mu.Lock()
	defer k.mu.Unlock()
	fail := func(code int, text string) {
		w.WriteHeader(code)
		_ = json.NewEncoder(w).Encode(map[string]string{"message": text})
	}
	name, ok := strings.CutPrefix(r.URL.Path, "/api/v1/namespaces/mine/secrets/")
	data := k.secrets[name]
	switch {
	case r.Header.Get("Authorization") != "Bearer "+k.token:
		fail(http.StatusUnauthorized, "a wrong token")
		return
	case !ok || data == nil:
		fail(http.StatusNotFound, "no such secret\x1b[31m")
		return
	case r.Method == http.MethodPatch:
		var patch content
		if err := json.NewDecoder(r.Body).Decode(&patch); err != nil ||
			r.Header.Get("Content-Type") != "application/merge-patch+json" {
			fail(http.StatusBadRequest, "not a merge patch")
			return
		}
		if patch.Metadata.Version != strconv.Itoa(k.versions[name]) {
			fail(http.StatusConflict, "the object has been modified")
			return
		}
		maps.Copy(data, patch.Data)
		k.versions[name]++
		k.changes++
	}
	var answer content
	answer.Metadata.Version, answer.Data = strconv.Itoa(k.versions[name]), data
	_ = json.NewEncoder(w).Encode(answer)
}

// TestSecretsHoldASet: what one pod makes, the next has; what has not changed is not written; what another has changed
// meanwhile is not overwritten; each refusal is named.
func TestSecretsHoldASet(t *testing.T) {
	api := &kubernetes{secrets: map[string]map[string][]byte{"x-ca": {}, "x-worker": {}},
		versions: map[string]int{}, token: "first"}
	server := httptest.NewTLSServer(api)
	defer server.Close()
	account := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(filepath.Join(account, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("namespace", "mine")
	write("token", "first\n")
	write("ca.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})))
	store, err := secretsAt(server.URL, account)
	if err != nil {
		t.Fatal(err)
	}
	pod := func(dir string, between func()) error {
		own, files := AuthorityIn(filepath.Join(dir, "ca")), FilesIn(filepath.Join(dir, "worker"))
		return RenewSecrets(t.Context(), store, []Secret{{"x-ca", map[string]string{"a.crt": own.Cert,
			"a.key": own.Key}},
			{"x-worker", map[string]string{"ca.crt": files.CA, "tls.crt": files.Cert, "tls.key": files.Key}}},
			func() error {
				between()
				a, _, err := OpenAuthority(filepath.Join(dir, "ca"), "a", time.Now())
				if err != nil {
					return err
				}
				_, err = a.Issue(filepath.Join(dir, "worker"), Worker, time.Hour)
				return err
			})
	}
	first, second := t.TempDir(), t.TempDir()
	if err := pod(first, func() {}); err != nil || api.changes != 2 {
		t.Fatalf("%v after %d changes", err, api.changes)
	}
	api.token = "second" // Kubernetes renews it
	write("token", "second")
	if err := pod(second, func() {}); err != nil || api.changes != 2 {
		t.Errorf("the second pod: %v after %d changes", err, api.changes)
	}
	for _, dir := range []string{first, second} {
		k, err := Load(FilesIn(filepath.Join(dir, "worker")), Identity{Worker, "a"})
		if err != nil {
			t.Fatal(err)
		}
		if got := api.secrets["x-worker"]["tls.crt"]; !strings.Contains(string(pem.EncodeToMemory(&pem.Block{
			Type: "CERTIFICATE", Bytes: k.set.Load().pair.Leaf.Raw})), string(got)) {
			t.Errorf("%s has another certificate than the Secret", dir)
		}
	}
	api.secrets["x-worker"] = map[string][]byte{}
	if err := pod(t.TempDir(), func() { api.versions["x-worker"]++ }); err == nil ||
		!strings.Contains(err.Error(), "x-worker: 409") {
		t.Errorf("changed by another meanwhile: %v", err)
	}
	delete(api.secrets, "x-ca")
	if err := pod(first, func() {}); err == nil || !strings.Contains(err.Error(), "x-ca: 404") ||
		strings.Contains(err.Error(), "\x1b") {
		t.Errorf("no Secret: %v", err)
	}
	api.token = "third"
	if err := pod(first, func() {}); err == nil || !strings.Contains(err.Error(), "401") {
		t.Errorf("a wrong token: %v", err)
	}
	server.Close()
	ctx, stop := context.WithTimeout(t.Context(), limit)
	defer stop()
	if _, err := store.Fetch(ctx, Secret{Name: "x-ca"}); err == nil {
		t.Error("an API that has gone is no error")
	}
	if _, err := secretsAt(server.URL, t.TempDir()); err == nil {
		t.Error("no account is no error")
	}
}

// TestPeersTrustEachOther: etcd's nodes, each under its own name, and nothing else.
func TestPeersTrustEachOther(t *testing.T) {
	dir := t.TempDir()
	a, made, err := OpenPeerAuthority(filepath.Join(dir, "ca"), "peers", time.Now())
	if err != nil || !made {
		t.Fatal(made, err)
	}
	for _, want := range []bool{true, false} {
		if made, err := a.IssuePeer(filepath.Join(dir, "set"), time.Hour); err != nil || made != want {
			t.Errorf("made %v, %v; want %v", made, err, want)
		}
	}
	if _, err := Load(FilesIn(filepath.Join(dir, "set")), Identity{Etcd, "peers"}); err == nil {
		t.Error("a set of peers counts as one of a role")
	}
	dialled := handshakes(t, FilesIn(filepath.Join(dir, "set")))
	for name, want := range map[string]bool{"etcd-0.peers": true, "etcd-2.peers": true, "peers": false,
		"etcd-0.others": false, "a.b.peers": false} {
		if err := dialled(name); (err == nil) != want {
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
}

// handshakes tries one of etcd's kind, both ends with the same set, by the name that the client expects.
func handshakes(t *testing.T, files Files) func(name string) error {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(files.Cert, files.Key)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(files.CA)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	config := &tls.Config{Certificates: []tls.Certificate{pair}, RootCAs: roots, ClientCAs: roots,
		ClientAuth: tls.RequireAndVerifyClientCert, MinVersion: tls.VersionTLS13}
	return func(name string) error {
		c, s := net.Pipe()
		defer c.Close()
		defer s.Close()
		mine := config.Clone()
		mine.ServerName = name
		served := make(chan error, 1)
		go func() { served <- tls.Server(s, config).HandshakeContext(t.Context()) }()
		err := tls.Client(c, mine).HandshakeContext(t.Context())
		if err != nil {
			_ = c.Close()
		}
		return errors.Join(err, <-served)
	}
}
