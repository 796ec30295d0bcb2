package security

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"evenweave/proto"
)

const limit = 3 * time.Minute // only a hang takes so long, however busy the machine is

// authority is a new one.
func authority(t *testing.T, job string) *Authority {
	t.Helper()
	a, err := newAuthority(job, job+domain, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// issued are the keys of a role, made by an authority.
func issued(t *testing.T, a *Authority, role Role) *Keys {
	t.Helper()
	dir := t.TempDir()
	if _, err := a.Issue(dir, role, time.Hour); err != nil {
		t.Fatal(err)
	}
	k, err := Load(FilesIn(dir), Identity{role, a.job})
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// forged is a certificate that an authority has signed with whatever is asked.
func forged(t *testing.T, by *Authority, change func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{DNSNames: []string{"coordinator.job.evenweave.internal"},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth,
			x509.ExtKeyUsageClientAuth}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	change(template)
	der, err := sign(template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// member answers every call.
type member struct {
	proto.UnimplementedMemberServer
}

func (member) Probe(context.Context, *proto.ProbeRequest) (*proto.Status, error) {
	return &proto.Status{Member: "a"}, nil
}

// serve runs the Member service of a worker, until the test ends.
func serve(t *testing.T, keys *Keys) (address string) {
	t.Helper()
	over := Over(keys)
	l, err := over.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(over.ServerOptions()...)
	proto.RegisterMemberServer(server, member{})
	proto.RegisterCoordinatorServer(server, proto.UnimplementedCoordinatorServer{})
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func call(t *testing.T, address string, options ...grpc.DialOption) error {
	t.Helper()
	c, err := grpc.NewClient("passthrough:///"+address, options...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	_, err = proto.NewMemberClient(c).Probe(ctx, &proto.ProbeRequest{})
	return err
}

// TestStrangersAreRefused: at a port over TLS only a process of this job gets an answer, and only over TLS 1.3.
func TestStrangersAreRefused(t *testing.T) {
	ours, others := authority(t, "job"), authority(t, "job")
	address := serve(t, issued(t, ours, Worker))
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	with := func(certificates ...tls.Certificate) *tls.Config {
		return &tls.Config{RootCAs: roots, ServerName: "worker.job.evenweave.internal", MinVersion: tls.VersionTLS12,
			NextProtos: []string{"h2"}, Certificates: certificates}
	}
	good := forged(t, ours, func(*x509.Certificate) {})
	if err := call(t, address, grpc.WithTransportCredentials(credentials.NewTLS(with(good)))); err != nil {
		t.Fatalf("the coordinator of this job: %v", err)
	}
	old := with(good)
	old.MaxVersion = tls.VersionTLS12
	selfSigned := authority(t, "job")
	for caller, config := range map[string]*tls.Config{
		"no certificate": with(),
		"TLS 1.2":        old,
		"self-signed": with(tls.Certificate{Certificate: [][]byte{selfSigned.cert.Raw},
			PrivateKey: selfSigned.key}),
		"another authority": with(forged(t, others, func(*x509.Certificate) {})),
		"expired": with(forged(t, ours,
			func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) })),
		"not yet valid": with(forged(t, ours,
			func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) })),
		"only a server's": with(forged(t, ours, func(c *x509.Certificate) {
			c.ExtKeyUsage = c.ExtKeyUsage[:1]
		})),
		"another job": with(forged(t, ours, func(c *x509.Certificate) {
			c.DNSNames = []string{"coordinator.other.evenweave.internal"}
		})),
		"two names": with(forged(t, ours, func(c *x509.Certificate) {
			c.DNSNames = append(c.DNSNames, "worker.job.evenweave.internal")
		})),
		"no role": with(forged(t, ours, func(c *x509.Certificate) {
			c.DNSNames = []string{"root.job.evenweave.internal"}
		})),
	} {
		err := call(t, address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: %v, want no connection", caller, err)
		}
	}
	if err := call(t, address, For(nil).Options(Worker)...); status.Code(err) != codes.Unavailable {
		t.Errorf("plain text: %v, want no connection", err)
	}
}

// TestOneTableSaysWhatARoleMayCall: each role reaches exactly the methods that the table names, and every
// method that is served is in it.
func TestOneTableSaysWhatARoleMayCall(t *testing.T) {
	for _, service := range []grpc.ServiceDesc{proto.Member_ServiceDesc, proto.Coordinator_ServiceDesc} {
		for _, m := range service.Methods {
			if len(mayCall["/"+service.ServiceName+"/"+m.MethodName]) == 0 {
				t.Errorf("%s/%s may be called by no role", service.ServiceName, m.MethodName)
			}
		}
		for _, m := range service.Streams {
			if len(mayCall["/"+service.ServiceName+"/"+m.StreamName]) == 0 {
				t.Errorf("%s/%s may be called by no role", service.ServiceName, m.StreamName)
			}
		}
	}
	a := authority(t, "job")
	address := serve(t, issued(t, a, Worker))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for _, role := range Roles() {
		c, err := grpc.NewClient("passthrough:///"+address, Over(issued(t, a, role)).Options(Worker)...)
		if err != nil {
			t.Fatal(err)
		}
		methods := append(slices.Collect(keysOf(mayCall)), "/evenweave.v1.Member/New", "/grpc.reflection.v1/Info")
		for _, method := range methods {
			stream, err := c.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
			if err == nil {
				_ = stream.SendMsg(&proto.ProbeRequest{})
				_ = stream.CloseSend()
				err = stream.RecvMsg(&proto.Status{})
			}
			allowed := slices.Contains(mayCall[method], role)
			refused := status.Code(err) == codes.PermissionDenied
			if unknown := status.Code(err) == codes.Unimplemented; !allowed && !refused && !unknown || allowed &&
				refused {
				t.Errorf("%s calls %s: %v, may: %v", role, method, err, allowed)
			}
			if want := "role " + string(role) + " may not call " + method; refused &&
				status.Convert(err).Message() != want {
				t.Errorf("%s calls %s: the refusal %q says more than %q", role, method, err, want)
			}
		}
		_ = c.Close()
	}
}

func keysOf[V any](m map[string]V) func(func(string) bool) {
	return func(yield func(string) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

// TestAWrongServerIsNotBelieved: a worker's certificate does not make a coordinator, nor an etcd.
func TestAWrongServerIsNotBelieved(t *testing.T) {
	a, b := authority(t, "job"), authority(t, "other")
	address := serve(t, issued(t, a, Worker))
	me := Over(issued(t, a, Coordinator))
	if err := call(t, address, me.Options(Worker)...); err != nil {
		t.Errorf("as a worker: %v", err)
	}
	for _, role := range []Role{Coordinator, Etcd, Operator} {
		if err := call(t, address, me.Options(role)...); err == nil ||
			!strings.Contains(err.Error(), string(role)+".job.") {
			t.Errorf("a worker that stands for %s: %v", role, err)
		}
	}
	if err := call(t, address, Over(issued(t, b, Coordinator)).Options(Worker)...); err == nil {
		t.Error("the coordinator of another job talks to it")
	}
}

// TestPagesAreForTheirRoles: what holds data needs a certificate of the role; without TLS there are probes alone, which
// say yes or no.
func TestPagesAreForTheirRoles(t *testing.T) {
	a := authority(t, "job")
	over := Over(issued(t, a, Coordinator))
	all := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/readyz" {
			http.Error(w, "secret", http.StatusServiceUnavailable)
			return
		}
		_, _ = io.WriteString(w, "secret")
	})
	l, err := over.ListenHTTPS("127.0.0.1:0", func(l net.Listener) net.Listener { return netutil.LimitListener(l, 8) })
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: over.Pages(all), ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0)}
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { _ = server.Close(); <-done }()
	get := func(config *tls.Config, page string) (int, string) {
		client := &http.Client{Timeout: limit, Transport: &http.Transport{TLSClientConfig: config,
			DisableKeepAlives: true}}
		answer, err := client.Get("https://" + l.Addr().String() + page)
		if err != nil {
			return 0, ""
		}
		defer answer.Body.Close()
		text, _ := io.ReadAll(answer.Body)
		return answer.StatusCode, string(text)
	}
	for _, role := range Roles() {
		config := Over(issued(t, a, role)).HTTPClient(Coordinator)
		for _, page := range []string{"/status", "/checkpoint", "/metrics", "/healthz", "/other"} {
			may := slices.Contains(maySee[page], role)
			if code, text := get(config, page); (code == http.StatusOK) != may ||
				strings.Contains(text, "secret") != may {
				t.Errorf("%s sees %s: %d, %q; may: %v", role, page, code, text, may)
			}
		}
		config.Certificates = nil
		if code, text := get(config, "/metrics"); code != http.StatusUnauthorized || strings.Contains(text, "secret") {
			t.Errorf("without a certificate: %d, %q", code, text)
		}
	}
	plain := over.Plain(all)
	for page, want := range map[string]int{"/healthz": 200, "/readyz": 503, "/status": 404, "/metrics": 404,
		"/checkpoint": 404} {
		w := httptest.NewRecorder()
		plain.ServeHTTP(w, httptest.NewRequest("GET", page, nil))
		if w.Code != want || strings.Contains(w.Body.String(), "secret") {
			t.Errorf("without TLS %s: %d, %q; want %d", page, w.Code, w.Body, want)
		}
	}
}

// TestWhatIsSilentIsGivenUp: a connection that begins no TLS ends within the server's time for handshakes.
func TestWhatIsSilentIsGivenUp(t *testing.T) {
	over := Over(issued(t, authority(t, "job"), Worker))
	l, err := over.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(append(over.ServerOptions(), grpc.ConnectionTimeout(50*time.Millisecond))...)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-done }()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(limit))
	if _, err := c.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("a silent caller: %v, want the end of the connection", err)
	}
}

// files are those of a role in a directory of an authority.
func files(dir string, role Role) Files { return FilesIn(filepath.Join(dir, string(role))) }
