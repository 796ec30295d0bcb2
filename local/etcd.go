package local

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"go.etcd.io/etcd/server/v3/embed"
)

// ServeEtcd runs a single etcd server with its data in dir until ctx ends.
func ServeEtcd(ctx context.Context, dir, client, peer string) error {
	cfg := embed.NewConfig()
	cfg.Name, cfg.Dir = "evenweave", dir
	cfg.LogLevel = "warn"
	cfg.ListenClientUrls = []url.URL{{Scheme: "http", Host: client}}
	cfg.AdvertiseClientUrls = cfg.ListenClientUrls
	cfg.ListenPeerUrls = []url.URL{{Scheme: "http", Host: peer}}
	cfg.AdvertisePeerUrls = cfg.ListenPeerUrls
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	// Neither a web page nor another host's name has anything to ask here: all clients speak gRPC. An empty set would allow every origin.
	cfg.EnableGRPCGateway = false
	cfg.CORS = map[string]struct{}{"none": {}}
	cfg.HostWhitelist = map[string]struct{}{"127.0.0.1": {}, "localhost": {}}
	// Alone it has nobody to wait for: an election may be quick.
	cfg.TickMs, cfg.ElectionMs = 50, 500
	cfg.AutoCompactionMode, cfg.AutoCompactionRetention = embed.CompactorModeRevision, "1000"
	e, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("embedded etcd in %s: %w", dir, err)
	}
	defer e.Close()
	select {
	case <-e.Server.ReadyNotify():
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
