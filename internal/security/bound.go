package security

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
)

// A member's record and the world name the public key of its certificate. The other end of a connection is that member
// only if it has proved that key: a certificate of the role worker alone proves only that it is some member.

// keyOf is the name of a certificate's public key in records.
func keyOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.RawSubjectPublicKeyInfo)
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Registered are the keys that this process's record has to name: the one in use, and a renewed one that waits; nil
// without TLS.
func (t *Transport) Registered() []string {
	if t.keys == nil {
		return nil
	}
	keys := []string{keyOf(t.keys.set.Load().pair.Leaf)}
	if next := t.keys.next.Load(); next != nil {
		keys = append(keys, keyOf(next.pair.Leaf))
	}
	return keys
}

var (
	errOtherKey     = status.Error(codes.Unauthenticated, "the other end has not the key that is registered")
	errUnregistered = status.Error(codes.PermissionDenied, "no registered member has the caller's key")
)

// OtherKey reports whether a call has failed because one end does not have the key that the other expects. If it has
// renewed its key since the connection was made, a new connection helps.
func OtherKey(err error) bool {
	var said interface{ GRPCStatus() *status.Status } // not status.FromError, which adds the text of errors around it
	if !errors.As(err, &said) {
		return false
	}
	for _, known := range []error{errOtherKey, errUnregistered} {
		if said.GRPCStatus().Code() == status.Code(known) &&
			said.GRPCStatus().Message() == status.Convert(known).Message() {
			return true
		}
	}
	return false
}

// ExpectKeys returns the options of a call to a member with these keys. The call fails, before anything is sent, if the
// other end has another key.
func (t *Transport) ExpectKeys(keys []string) []grpc.CallOption {
	if t.keys == nil {
		return nil
	}
	return []grpc.CallOption{grpc.PerRPCCredentials(expected(keys))}
}

type expected []string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (e expected) GetRequestMetadata(ctx context.Context, _ ...string) (map[string]string, error) {
	info, _ := credentials.RequestInfoFromContext(ctx)
	return nil, proved(info.AuthInfo, e)
}

// RequireTransportSecurity implements credentials.PerRPCCredentials.
func (expected) RequireTransportSecurity() bool { return true }

// proved returns nil if the other end has proved one of these keys.
func proved(info credentials.AuthInfo, keys []string) error {
	if chain := certificates(info); len(chain) == 0 || !slices.Contains(keys, keyOf(chain[0])) {
		return errOtherKey
	}
	return nil
}

// certificates are those that the other end has shown.
func certificates(info credentials.AuthInfo) []*x509.Certificate {
	secure, _ := info.(credentials.TLSInfo)
	return secure.State.PeerCertificates
}

// authOf is what the caller of a served method has proved; nil: nothing.
func authOf(ctx context.Context) credentials.AuthInfo {
	if p, ok := peer.FromContext(ctx); ok {
		return p.AuthInfo
	}
	return nil
}

// CheckCaller returns an error unless the caller of a served method has one of these keys.
func (t *Transport) CheckCaller(ctx context.Context, keys []string) error {
	if t.keys == nil {
		return nil
	}
	return proved(authOf(ctx), keys)
}

// CheckReader returns an error unless the caller of a served method has one of these keys or is no worker.
func (t *Transport) CheckReader(ctx context.Context, keys []string) error {
	if t.keys == nil {
		return nil
	}
	info := authOf(ctx)
	if i, err := t.keys.caller(certificates(info)); err == nil && i.Role != Worker {
		return nil
	}
	if proved(info, keys) != nil {
		return errUnregistered
	}
	return nil
}
