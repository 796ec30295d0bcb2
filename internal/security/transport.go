// Package security connects the processes of a job, over Unix sockets or TLS, and decides which role may call what. It
// is the one home of TLS.
//
//	transport.go  how a process is reached, and listens
//	sockets.go    the directory of a cluster on one machine, which only its user can enter
//	identity.go   the role and the job in a certificate's name
//	keys.go       a process's certificate files, read again when they change
//	handshake.go  mutual TLS 1.3
//	bound.go      a connection is bound to the key in a member's record
//	access.go     which role may call which method, or see which page
//	seal.go       the coordinator's signature on its records
//	authority.go  an authority of one's own: makes and renews certificates
//
// On one machine processes talk over Unix sockets, which the kernel guards. Beyond it they talk over TLS: both ends
// show a certificate whose one name is ROLE.JOB.evenweave.internal. The client asks for the role and job that it
// expects, the server looks up the caller's role in one table.
package security

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"evenweave/internal/job"
)

// Transport reaches the processes of one cluster, and listens for them. It is safe for concurrent use.
type Transport struct {
	sockets string // the directory of the cluster's Unix sockets; "": it has none
	keys    *Keys  // nil: no TLS
	seals   *Keys  // of records where there is no TLS; nil: they have no seals
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

// Over returns the transport of a cluster over TLS.
func Over(keys *Keys) *Transport { return &Transport{keys: keys} }

// Keys are those of a transport over TLS, else nil.
func (t *Transport) Keys() *Keys { return t.keys }

// Insecure reports whether every process that reaches a port of the cluster is served.
func (t *Transport) Insecure() bool { return t.keys == nil && t.sockets == "" }

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

// Options are what a gRPC client needs to reach processes of a role, with "passthrough:///" as its resolver.
func (t *Transport) Options(to Role) []grpc.DialOption {
	return []grpc.DialOption{grpc.WithTransportCredentials(t.Credentials(to)), grpc.WithContextDialer(t.Dial)}
}

// Credentials are what a process of a role is dialled with.
func (t *Transport) Credentials(to Role) credentials.TransportCredentials {
	if t.keys == nil {
		return insecure.NewCredentials()
	}
	return clientCredentials{t.keys, to}
}

// HTTPClient returns the settings with which an HTTP client reaches servers of a role; nil without TLS.
func (t *Transport) HTTPClient(of Role) *tls.Config {
	if t.keys == nil {
		return nil
	}
	c := t.keys.client(of)
	c.NextProtos = nil
	return c
}

// ListenHTTPS listens for pages over TLS, to as many connections as limited allows. A caller may come without a
// certificate: see Pages.
func (t *Transport) ListenHTTPS(address string, limited func(net.Listener) net.Listener) (net.Listener, error) {
	if t.keys == nil {
		return nil, errors.New("no certificate is given")
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, err
	}
	return tls.NewListener(limited(l), t.keys.server(tls.VerifyClientCertIfGiven, "http/1.1")), nil
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

// Refused reports whether an error of dialling means that nothing listens at the address.
func Refused(err error) bool {
	return errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, fs.ErrNotExist)
}
