package bench

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"google.golang.org/grpc"

	"evenweave/allreduce"
	"evenweave/allreduce/grpclink"
	"evenweave/internal/security"
)

// What the ring's streams run over. Each has a ring of its own, and they take turns.
const (
	overTCP  = "sum" // plain text
	overTLS  = "tls"
	overUnix = "unix" // sockets
)

const benchJob = "bench"

// certify makes a directory with certificates for the members, and for their sockets. The caller removes it.
func certify() (dir string, err error) {
	if dir, err = security.MakeSockets(); err != nil {
		return "", err
	}
	a, _, err := security.OpenAuthority(filepath.Join(dir, "ca"), benchJob, time.Now())
	if err == nil {
		_, err = a.Issue(filepath.Join(dir, "member"), security.Worker, 24*time.Hour)
	}
	if err != nil {
		return "", errors.Join(err, os.RemoveAll(dir))
	}
	return dir, nil
}

// transports are those to measure; dir is of certify, or "" for plain TCP alone.
func transports(dir string) (map[string]*security.Transport, error) {
	all := map[string]*security.Transport{overTCP: security.For(nil)}
	if dir == "" {
		return all, nil
	}
	keys, err := security.Load(security.FilesIn(filepath.Join(dir, "member")),
		security.Identity{Role: security.Worker, Job: benchJob})
	if err != nil {
		return nil, err
	}
	all[overTLS] = security.Over(keys)
	all[overUnix] = security.For([]string{"unix:" + filepath.Join(dir, "etcd.sock")})
	return all, nil
}

// end is a member's end of the rings over one transport.
type end struct {
	over    *security.Transport
	server  *grpc.Server
	links   *grpclink.Server
	address string
}

// listen serves a member's end until stop.
func listen(over *security.Transport, address string, serving *sync.WaitGroup) (*end, error) {
	l, err := over.Listen(address)
	if err != nil {
		return nil, err
	}
	e := &end{over: over, links: grpclink.NewServer(nil, nil),
		server:  grpc.NewServer(append(over.ServerOptions(), grpclink.ServerOptions()...)...),
		address: l.Addr().String()}
	if at, ok := security.Address(l.Addr()); ok {
		e.address = at
	}
	e.links.Register(e.server)
	serving.Go(func() { _ = e.server.Serve(l) })
	return e, nil
}

// dial opens the stream to the right neighbour.
func (e *end) dial(ctx context.Context, right string, hello grpclink.Hello) (allreduce.Sender, error) {
	return grpclink.Dialer{Connect: e.over.Dial, Refused: security.Refused,
		Credentials: e.over.Credentials(security.Worker)}.Dial(ctx, right, hello)
}
