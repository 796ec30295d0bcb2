// Package security decides over what the processes of a job talk to each other. On one machine these are Unix sockets
// in a directory that only their user can enter; a process beyond it is reached over TCP.
package security

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"evenweave/internal/job"
)

// Transport reaches the processes of one cluster, and listens for them. It is safe for concurrent use.
type Transport struct {
	sockets string // the directory of the cluster's Unix sockets; "": it has none
}

// For returns the transport of the cluster whose etcd has these endpoints. If etcd is at a Unix socket, the other
// processes may be at sockets beside it.
func For(endpoints []string) *Transport {
	t := &Transport{}
	for _, e := range endpoints {
		if name, ok := SocketPath(e); ok {
			t.sockets = filepath.Dir(name)
		}
	}
	return t
}

// SocketPath returns the absolute path in an endpoint unix:PATH or unix://PATH.
func SocketPath(endpoint string) (path string, ok bool) {
	path, ok = strings.CutPrefix(endpoint, "unix:")
	return "/" + strings.TrimLeft(path, "/"), ok && strings.HasPrefix(path, "/")
}

// Listen listens at an address of a record or flag: host:port, or unix:NAME.sock for a socket beside etcd's. It takes
// the place of a socket that a killed process has left.
func (t *Transport) Listen(address string) (net.Listener, error) {
	network, at, err := t.locate(address)
	if err != nil || network != "unix" {
		if err == nil {
			return net.Listen(network, at)
		}
		return nil, err
	}
	if info, err := os.Lstat(at); err == nil && info.Mode().Type() == fs.ModeSocket {
		if c, err := net.Dial(network, at); err == nil {
			_ = c.Close()
			return nil, fmt.Errorf("listen unix %s: %w", at, syscall.EADDRINUSE)
		} else if Refused(err) {
			_ = os.Remove(at)
		}
	}
	l, err := net.Listen(network, at)
	if err != nil {
		return nil, err
	}
	return l, os.Chmod(at, 0o600) // the directory keeps others out already
}

// Dial connects to an address.
func (t *Transport) Dial(ctx context.Context, address string) (net.Conn, error) {
	network, at, err := t.locate(address)
	if err != nil {
		return nil, err
	}
	return new(net.Dialer).DialContext(ctx, network, at)
}

// Options are what a gRPC client needs to reach an address over this transport, with "passthrough:///" as its resolver.
func (t *Transport) Options() []grpc.DialOption {
	return []grpc.DialOption{
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(t.Dial),
	}
}

// locate says where an address leads. A socket's name cannot lead out of the directory: see job.CheckAddress.
func (t *Transport) locate(address string) (network, at string, err error) {
	name, ok := job.Socket(address)
	if !ok {
		return "tcp", address, nil
	}
	if t.sockets == "" {
		return "", "", fmt.Errorf("%s is a socket beside etcd's, but etcd is reached over TCP", job.Clean(address))
	}
	return "unix", filepath.Join(t.sockets, name), nil
}

// Address is what others reach a listener at, if it is a Unix socket beside etcd's.
func Address(l net.Addr) (address string, ok bool) {
	if l.Network() != "unix" {
		return "", false
	}
	return "unix:" + filepath.Base(l.String()), true
}

// Refused says that nothing listens at an address that was dialled.
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
