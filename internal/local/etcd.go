package local

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/embed"

	"evenweave/internal/security"
)

// ServeEtcd runs a single etcd server with its data in dir until ctx ends. Clients reach it at the endpoint, unix:PATH
// or http://HOST:PORT, or https://HOST:PORT with files: then a client needs a certificate of the same authority. It
// listens for no peers. It writes a line to ready once it listens at the endpoint.
func ServeEtcd(ctx context.Context, dir, endpoint string, tls security.Files, ready io.Writer) error {
	client, err := url.Parse(endpoint)
	if err != nil {
		return fmt.Errorf("embedded etcd: %w", err)
	}
	if path, ok := security.SocketPath(endpoint); ok {
		client = &url.URL{Scheme: "unix", Path: path}
	}
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "evenweave", dir
	cfg.LogLevel = "warn"
	cfg.ListenClientUrls = []url.URL{*client}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	info := &cfg.ClientTLSInfo
	info.CertFile, info.KeyFile, info.TrustedCAFile, info.ClientCertAuth = tls.Cert, tls.Key, tls.CA,
		tls != security.Files{}
	cfg.TlsMinVersion = "TLS1.3"
	cfg.ListenPeerUrls = nil
	cfg.AdvertisePeerUrls = []url.URL{{Scheme: "unix", Host: "none"}}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// No web page may send requests: all clients speak gRPC. An empty set would allow every origin.
	cfg.EnableGRPCGateway = false
	cfg.CORS = map[string]struct{}{"none": {}}
	cfg.HostWhitelist = map[string]struct{}{"127.0.0.1": {}, "localhost": {}}
	cfg.MaxConcurrentStreams = 64 // of one client
	// One server elects itself: a short timeout is safe.
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("embedded etcd in %s: %w", dir, err)
	}
	defer e.Close()
	if _, err := fmt.Fprintln(ready, "listening"); err != nil {
		return fmt.Errorf("embedded etcd: reporting that it listens: %w", err)
	}
	select {
	case <-e.Server.ReadyNotify():
	case <-ctx.Done():
		return nil
	case <-time.After(30 * time.Second):
		return fmt.Errorf("embedded etcd in %s is not ready after 30 s", dir)
	case err := <-e.Err():
		return fmt.Errorf("embedded etcd: %w", err)
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-e.Err():
		return fmt.Errorf("embedded etcd: %w", err)
	}
}

const listenTimeout = 60 * time.Second

// startEtcd starts etcd and waits until it listens.
func (s *supervisor) startEtcd(ctx context.Context, interrupt <-chan struct{}, endpoint string) error {
	listening := make(chan struct{})
	listens := sync.OnceFunc(func() { close(listening) })
	what := Launch{Etcd, map[string]string{"dir": filepath.Join(s.cfg.Dir, "etcd"), "listen": endpoint}}
	s.keep("etcd", what, func(r io.Reader) error {
		if n, _ := r.Read(make([]byte, 1)); n > 0 {
			listens()
		}
		_, err := io.Copy(io.Discard, r)
		return err
	})
	return s.awaitEtcd(ctx, interrupt, listening)
}

// awaitEtcd waits until etcd is ready, as the channel that is closed then says. Meanwhile it starts etcd again if that
// ends.
func (s *supervisor) awaitEtcd(ctx context.Context, interrupt, ready <-chan struct{}) error {
	deadline := time.After(listenTimeout)
	for {
		select {
		case <-ready:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-interrupt:
			return &Exit{Code: 130, Tail: "interrupted before anything was trained"}
		case <-deadline:
			return &Exit{Code: 1, Tail: fmt.Sprintf("etcd is not ready after %v (log: %s)",
				listenTimeout, s.logPath("etcd"))}
		case p := <-s.due:
			s.resume(p)
		case e := <-s.exits:
			if done, err := s.exited(e); done {
				return err
			}
		}
	}
}
