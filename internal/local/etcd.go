package local

import (
	"context"
	"fmt"
	"io"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// ServeEtcd runs a single etcd server with its data in dir until ctx ends. It writes a line to ready once its ports are
// its own.
func ServeEtcd(ctx context.Context, dir, client, peer string, ready io.Writer) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "evenweave", dir
	cfg.LogLevel = "warn"
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: client}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: peer}}
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Neither a web page nor another host's name has anything to ask here: all clients speak gRPC. An empty set would
	// allow every origin.
	cfg.EnableGRPCGateway = false
	cfg.CORS = map[string]struct{}{"none": {}}
	cfg.HostWhitelist = map[string]struct{}{"127.0.0.1": {}, "localhost": {}}
	// It is alone: an election may be quick.
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

const (
	portTries     = 8
	listenTimeout = 60 * time.Second
)

// startEtcd starts etcd on two ports that choose finds, and waits until they are its own: only then is it safe to give
// others the address, for another run's etcd may have been quicker. While a port is taken it chooses again. It returns
// the client address.
func (s *supervisor) startEtcd(ctx context.Context, interrupt <-chan struct{},
	choose func() (client, peer string, err error)) (string, error) {
	for try := 1; ; try++ {
		client, peer, err := choose()
		if err != nil {
			return "", err
		}
		listening := make(chan struct{})
		listens := sync.OnceFunc(func() { close(listening) })
		what := Launch{Etcd, map[string]string{"dir": filepath.Join(s.cfg.Dir, "etcd"), "client": client, "peer": peer}}
		s.keep("etcd", what, func(r io.Reader) error {
			if n, _ := r.Read(make([]byte, 1)); n > 0 {
				listens()
			}
			_, err := io.Copy(io.Discard, r)
			return err
		})
		taken, err := s.awaitEtcd(ctx, interrupt, listening)
		if err != nil || !taken {
			return client, err
		}
		if try == portTries {
			return "", &Exit{Code: 1, Tail: fmt.Sprintf("etcd found a port of its own taken %d times in a row, the "+
				"last time of %s and %s", try, client, peer)}
		}
	}
}

// awaitEtcd waits until etcd listens. taken: it ended, for another process has its port.
func (s *supervisor) awaitEtcd(ctx context.Context, interrupt, listening <-chan struct{}) (taken bool, err error) {
	deadline := time.After(listenTimeout)
	for {
		select {
		case <-listening:
			return false, nil
		case <-ctx.Done():
			return false, context.Cause(ctx)
		case <-interrupt:
			return false, &Exit{Code: 130, Tail: "interrupted before anything was trained"}
		case <-deadline:
			return false, &Exit{Code: 1, Tail: fmt.Sprintf("etcd does not listen after %v (log: %s)",
				listenTimeout, s.logPath("etcd"))}
		case p := <-s.due:
			s.resume(p)
		case e := <-s.exits:
			if e.p == s.procs["etcd"] && strings.Contains(s.tail(e.p), syscall.EADDRINUSE.Error()) {
				s.gone(e.p)
				delete(s.procs, "etcd")
				return true, nil
			}
			if done, err := s.exited(e); done {
				return false, err
			}
		}
	}
}
