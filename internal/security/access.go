package security

import (
	"context"
	"crypto/tls"
	"net/http"
	"slices"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
)

// mayCall says which roles may call a method over gRPC. What is not here may not be called.
var mayCall = map[string][]Role{
	"/evenweave.Ring/Link":                 {Worker},
	"/evenweave.v1.Member/Follow":          {Coordinator},
	"/evenweave.v1.Member/Probe":           {Coordinator, Operator, Worker},
	"/evenweave.v1.Member/State":           {Coordinator, Worker},
	"/evenweave.v1.Member/Updates":         {Worker},
	"/evenweave.v1.Member/Acknowledge":     {Coordinator},
	"/evenweave.v1.Member/Blame":           {Coordinator, Operator},
	"/evenweave.v1.Coordinator/Checkpoint": {Worker},
}

// maySee says which roles may read a page over HTTPS. A page that is not here is for none; probes and the live page,
// which has a secret in its address, are served without this table.
var maySee = map[string][]Role{
	"/status":     {Operator},
	"/checkpoint": {Operator},
	"/metrics":    {Metrics, Operator},
}

// allow returns why a caller may not call the method, or nil. The caller gets the error: it names nothing of this
// process.
func (k *Keys) allow(ctx context.Context, method string) error {
	i, err := k.caller(certificates(authOf(ctx)))
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if !slices.Contains(mayCall[method], i.Role) {
		return status.Errorf(codes.PermissionDenied, "role %s may not call %s", i.Role, method)
	}
	return nil
}

// ServerOptions are the credentials of a gRPC server, and the check of every call.
func (t *Transport) ServerOptions() []grpc.ServerOption {
	if t.keys == nil {
		return nil
	}
	k := t.keys
	return []grpc.ServerOption{
		grpc.Creds(credentials.NewTLS(k.server(tls.RequireAndVerifyClientCert, "h2"))),
		grpc.ChainUnaryInterceptor(func(ctx context.Context, r any, info *grpc.UnaryServerInfo,
			handler grpc.UnaryHandler) (any, error) {
			if err := k.allow(ctx, info.FullMethod); err != nil {
				return nil, err
			}
			return handler(ctx, r)
		}),
		grpc.ChainStreamInterceptor(func(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo,
			handler grpc.StreamHandler) error {
			if err := k.allow(stream.Context(), info.FullMethod); err != nil {
				return err
			}
			return handler(server, stream)
		}),
	}
}

// Pages serves each page, over HTTPS, to the roles that may see it. Without TLS there are no roles, and it serves all.
func (t *Transport) Pages(pages http.Handler) http.Handler {
	if t.keys == nil {
		return pages
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil {
			http.Error(w, "served over TLS alone", http.StatusForbidden)
			return
		}
		i, err := t.keys.caller(r.TLS.PeerCertificates)
		if err != nil {
			http.Error(w, err.Error(), http.StatusUnauthorized)
			return
		}
		if !slices.Contains(maySee[r.URL.Path], i.Role) {
			http.Error(w, "role "+string(i.Role)+" may not see this page", http.StatusForbidden)
			return
		}
		pages.ServeHTTP(w, r)
	})
}

// Plain returns the pages that may be served without TLS: all of them in a cluster without TLS; otherwise those of the
// probes alone, and of their answers only the status code.
func (t *Transport) Plain(pages http.Handler) http.Handler {
	if t.keys == nil {
		return pages
	}
	mux := http.NewServeMux()
	for _, probe := range []string{"GET /healthz", "GET /readyz"} {
		mux.HandleFunc(probe, func(w http.ResponseWriter, r *http.Request) {
			answer := &mute{header: http.Header{}, code: http.StatusOK}
			pages.ServeHTTP(answer, r)
			w.WriteHeader(answer.code)
			_, _ = w.Write([]byte(http.StatusText(answer.code) + "\n"))
		})
	}
	return mux
}

// mute keeps only the code of an answer.
type mute struct {
	header http.Header
	code   int
}

func (m *mute) Header() http.Header         { return m.header }
func (m *mute) Write(b []byte) (int, error) { return len(b), nil }
func (m *mute) WriteHeader(code int)        { m.code = code }
