package security

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"

	"google.golang.org/grpc/credentials"
)

// basic are the settings of every connection: TLS 1.3 alone. A session ticket would skip the verification of a
// certificate that was revoked meanwhile, and records of growing sizes cost the ring system calls.
func (k *Keys) basic() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, DynamicRecordSizingDisabled: true,
		Time: k.Now, Certificates: []tls.Certificate{k.set.Load().pair}}
}

// client returns the settings to dial a process of a role of this job, with the keys that are in use now.
func (k *Keys) client(to Role) *tls.Config {
	c := k.basic()
	c.RootCAs, c.ServerName = k.set.Load().roots, Identity{to, k.want.Job}.Name()
	c.NextProtos = []string{"h2"}
	return c
}

// server returns the settings of a listener. Each handshake uses the keys that are in use then. A caller shows a
// certificate of this job, or, if it may come without, nothing.
func (k *Keys) server(need tls.ClientAuthType, protocols ...string) *tls.Config {
	outer := k.basic()
	outer.NextProtos = protocols
	outer.GetConfigForClient = func(*tls.ClientHelloInfo) (*tls.Config, error) {
		c := k.basic()
		c.ClientCAs, c.ClientAuth, c.NextProtos = k.set.Load().roots, need, protocols
		c.VerifyConnection = func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 {
				return nil // ClientAuth has allowed it
			}
			_, err := k.caller(s.PeerCertificates)
			return err
		}
		return c, nil
	}
	return outer
}

var errNoCertificate = errors.New("the caller has shown no certificate")

// caller is the identity that the other end has proved. It is of this job.
func (k *Keys) caller(chain []*x509.Certificate) (Identity, error) {
	if len(chain) == 0 {
		return Identity{}, errNoCertificate
	}
	i, err := identify(chain[0])
	if err == nil && i.Job != k.want.Job {
		err = errors.New("the caller belongs to another job")
	}
	return i, err
}

// clientCredentials dial a role, each time with the keys in use then. gRPC's own credentials keep their first keys.
type clientCredentials struct {
	keys *Keys
	to   Role
}

// ClientHandshake expects the role's name. It ignores the authority that gRPC passes: etcd's client sets it to an
// address.
func (c clientCredentials) ClientHandshake(ctx context.Context, _ string, conn net.Conn) (net.Conn,
	credentials.AuthInfo, error) {
	config := c.keys.client(c.to)
	secure, info, err := credentials.NewTLS(config).ClientHandshake(ctx, config.ServerName, conn)
	return secure, info, c.keys.explain(err)
}

func (c clientCredentials) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are credentials of a client")
}

func (c clientCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls", ServerName: Identity{c.to, c.keys.want.Job}.Name()}
}

func (c clientCredentials) Clone() credentials.TransportCredentials { return c }

func (c clientCredentials) OverrideServerName(string) error { return nil }
