package security

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/regular"
)

const (
	account   = "/var/run/secrets/kubernetes.io/serviceaccount" // where Kubernetes mounts a pod's own
	askWithin = 10 * time.Second
)

// Secrets are those of a namespace of Kubernetes that hold the files of an authority and of roles. They must exist: a
// manifest makes them, and the pod's account may read and change these alone.
type Secrets struct {
	url    string // of the namespace's Secrets
	token  string // a file; Kubernetes renews it
	client *http.Client
}

// Secret is one, with the file that each of its keys holds.
type Secret struct {
	Name  string
	Files map[string]string
}

// PodSecrets are the Secrets of the namespace that this process's pod is in. server is the address of Kubernetes' API.
func PodSecrets(server string) (*Secrets, error) {
	return secretsAt("https://"+server, account)
}

func secretsAt(server, account string) (*Secrets, error) {
	namespace, err := regular.Read(filepath.Join(account, "namespace"), maxPEM)
	if err != nil {
		return nil, fmt.Errorf("no account of a pod: %w", err)
	}
	ca, err := regular.Read(filepath.Join(account, "ca.crt"), maxPEM)
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("%s holds no certificate of an authority: expected PEM",
			filepath.Join(account, "ca.crt"))
	}
	return &Secrets{url: server + "/api/v1/namespaces/" + strings.TrimSpace(string(namespace)) + "/secrets/",
		token: filepath.Join(account, "token"), client: &http.Client{Timeout: askWithin,
			Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
				DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}}}, nil
}

// content is a Secret as the API gives and takes it.
type content struct {
	Metadata struct {
		Version string `json:"resourceVersion"`
	} `json:"metadata"`
	Data map[string][]byte `json:"data"`
}

// RenewSecrets fetches the files of all Secrets, has them made or renewed, and stores those that have changed.
func RenewSecrets(ctx context.Context, store *Secrets, all []Secret, renew func() error) error {
	versions := make([]string, len(all))
	for i, secret := range all {
		var err error
		if versions[i], err = store.Fetch(ctx, secret); err != nil {
			return err
		}
	}
	if err := renew(); err != nil {
		return err
	}
	for i, secret := range all {
		if err := store.Store(ctx, secret, versions[i]); err != nil {
			return err
		}
	}
	return nil
}

// Fetch writes the files of a Secret, those that it holds, and returns what Store needs.
func (s *Secrets) Fetch(ctx context.Context, secret Secret) (version string, err error) {
	held, err := s.ask(ctx, http.MethodGet, secret.Name, nil)
	if err != nil {
		return "", err
	}
	for key, file := range secret.Files {
		if b := held.Data[key]; len(b) > 0 {
			if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
				return "", err
			}
			if err := regular.Replace(file, b); err != nil {
				return "", err
			}
		}
	}
	return held.Metadata.Version, nil
}

// Store puts the files into a Secret, unless it holds them. It fails if the Secret has changed since Fetch.
func (s *Secrets) Store(ctx context.Context, secret Secret, version string) error {
	held, err := s.ask(ctx, http.MethodGet, secret.Name, nil)
	if err != nil {
		return err
	}
	want := content{Data: map[string][]byte{}}
	for key, file := range secret.Files {
		b, err := regular.Read(file, maxPEM)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		if !bytes.Equal(b, held.Data[key]) {
			want.Data[key] = b
		}
	}
	if len(want.Data) == 0 {
		return nil
	}
	want.Metadata.Version = version
	_, err = s.ask(ctx, http.MethodPatch, secret.Name, &want)
	return err
}

// ask reads a Secret, or changes it as a merge patch says.
func (s *Secrets) ask(ctx context.Context, method, name string, patch *content) (got content, err error) {
	token, err := regular.Read(s.token, maxPEM)
	if err != nil {
		return got, err
	}
	var body bytes.Buffer
	if patch != nil {
		if err := json.NewEncoder(&body).Encode(patch); err != nil {
			return got, err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, s.url+name, &body)
	if err != nil {
		return got, err
	}
	maps.Copy(r.Header, http.Header{"Authorization": {"Bearer " + strings.TrimSpace(string(token))},
		"Content-Type": {"application/merge-patch+json"}, "Accept": {"application/json"}})
	answer, err := s.client.Do(r)
	if err != nil {
		return got, fmt.Errorf("Secret %s: %w", name, err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(io.LimitReader(answer.Body, 4*maxPEM))
	if err != nil {
		return got, fmt.Errorf("Secret %s: %w", name, err)
	}
	if answer.StatusCode != http.StatusOK {
		var failure struct{ Message string }
		_ = json.Unmarshal(text, &failure)
		return got, fmt.Errorf("Secret %s: %s: %s; the manifests of component tls-evenweave make it, and allow its use",
			name, answer.Status, job.Clean(failure.Message))
	}
	if err := json.Unmarshal(text, &got); err != nil {
		return got, fmt.Errorf("Secret %s: %w", name, err)
	}
	return got, nil
}
