package composetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"evenweave/internal/cluster"
	"evenweave/internal/progress"
	"evenweave/internal/security"
)

// jobName is the name of every job here.
const jobName = "evenweave"

// over is how a process of a role reaches the cluster, with the set that the stack made for it.
func (s *stack) over(role security.Role) *security.Transport {
	s.t.Helper()
	if known := s.roles[role]; known != nil && time.Until(known.Keys().NotAfter()) > shortLife/3 {
		return known
	}
	dir := filepath.Join(s.t.TempDir(), string(role))
	docker(s.t, "cp", s.compose("ps", "-aq", "certs")+":/certs/"+string(role), dir)
	keys, err := security.Load(security.FilesIn(dir), security.Identity{Role: role, Job: jobName})
	if err != nil {
		s.t.Fatal(err)
	}
	s.roles[role] = security.Over(keys)
	return s.roles[role]
}

// client asks processes of a role. as nil: without a certificate, and whatever the other shows.
func client(as *security.Transport, to security.Role) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true}
	if as != nil {
		config = as.HTTPClient(to)
	}
	return &http.Client{Timeout: bound, Transport: &http.Transport{TLSClientConfig: config,
		DisableKeepAlives: true}}
}

// addresses of a container on its networks.
func addresses(t *testing.T, container string) []string {
	t.Helper()
	return strings.Fields(docker(t, "inspect", "--format",
		"{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}", container))
}

// gauge reads a metric of a process at its page over TLS, as Prometheus does.
func (s *stack) gauge(container string, role security.Role, name string) float64 {
	s.t.Helper()
	page := "https://" + addresses(s.t, container)[0] + ":8443/metrics"
	r, err := client(s.over(security.Metrics), role).Get(page)
	if err != nil {
		s.t.Fatal(err)
	}
	defer r.Body.Close()
	text, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		s.t.Fatalf("%s: %s %v", page, r.Status, err)
	}
	for line := range bytes.Lines(text) {
		if value, ok := bytes.CutPrefix(line, []byte(name+" ")); ok {
			n, err := strconv.ParseFloat(string(bytes.TrimSpace(value)), 64)
			if err != nil {
				s.t.Fatal(err)
			}
			return n
		}
	}
	s.t.Fatalf("%s has no %s", page, name)
	return 0
}

const shortLife = 90 * time.Second // of certificates, in the first minutes of the stack

// shortLived has the stack make certificates of a short life.
func shortLived() []string {
	return []string{"EVENWEAVE_CERTS_LIFE=" + shortLife.String(), "EVENWEAVE_CERTS_EVERY=10s"}
}

// renews waits until the stack has renewed all certificates by itself while the job trains, then gives them their usual
// life: no worker is lost, and steps go on.
func (s *stack) renews() {
	s.t.Helper()
	processes := map[string]security.Role{s.containers("coordinator")[0]: security.Coordinator}
	for _, w := range s.containers("worker") {
		processes[w] = security.Worker
	}
	s.taken(processes, 0)
	s.env = append(s.env, "EVENWEAVE_CERTS_LIFE=", "EVENWEAVE_CERTS_EVERY=") // as if never set
	s.compose("up", "-d", "--no-build", "--no-deps", "renewal")
	s.taken(processes, 24*time.Hour)
	s.t.Log(s.compose("logs", "--no-log-prefix", "renewal"))
	_, now := s.place(s.containers("worker")[0]) // the events that have been read are older
	s.await("steps with renewed certificates", func(e progress.Event) bool {
		if w, ok := e.(progress.World); ok && !w.Planned {
			s.t.Errorf("the renewal cost a world: %s", w.Reason)
		}
		step, ok := e.(progress.Step)
		return ok && step.Step >= now+20
	})
}

// taken waits until each process uses another certificate than now, with more than this time left.
func (s *stack) taken(processes map[string]security.Role, left time.Duration) {
	s.t.Helper()
	const expiry = "evenweave_tls_not_after_seconds"
	before := map[string]float64{}
	for id, role := range processes {
		before[id] = s.gauge(id, role, expiry)
	}
	tick, limit := time.NewTicker(200*time.Millisecond), time.After(bound)
	defer tick.Stop()
	for id, role := range processes {
		for {
			now := s.gauge(id, role, expiry)
			if now != before[id] && time.Until(time.Unix(int64(now), 0)) > left {
				break
			}
			select {
			case <-tick.C:
			case <-limit:
				s.t.Fatalf("%s %s has not taken a renewed certificate", role, id)
			}
		}
	}
}

// checkRenewal checks that what renews certificates is up and healthy, and ends at once when asked to.
func (s *stack) checkRenewal() {
	s.t.Helper()
	id := s.containers("renewal")[0]
	tick, limit := time.NewTicker(time.Second), time.After(bound)
	defer tick.Stop()
	for docker(s.t, "inspect", "--format", "{{.State.Health.Status}}", id) != "healthy" {
		select {
		case <-tick.C:
		case <-limit:
			s.t.Fatalf("renewal is not healthy: %s", docker(s.t, "inspect", "--format", "{{json .State.Health}}", id))
		}
	}
	s.compose("stop", "renewal")
	if state := docker(s.t, "inspect", "--format", "{{.State.Status}} {{.State.ExitCode}}", id); state != "exited 0" {
		s.t.Errorf("renewal, asked to end: %s, want exited 0", state)
	}
}

// listening lists the TCP ports of a container that are not on loopback.
func listening(t *testing.T, container string) (ports []string) {
	t.Helper()
	pid := docker(t, "inspect", "--format", "{{.State.Pid}}", container)
	for _, table := range []string{"tcp", "tcp6"} {
		b, err := os.ReadFile(filepath.Join("/proc", pid, "net", table))
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			f := strings.Fields(line)
			if len(f) < 4 || f[3] != "0A" {
				continue
			}
			host, port, _ := strings.Cut(f[1], ":")
			n, err := strconv.ParseUint(port, 16, 16)
			if err != nil {
				t.Fatal(err)
			}
			// 127.x.x.x, whose last byte in the table is the first
			if name := fmt.Sprint(n); !strings.HasSuffix(host, "7F") && !slices.Contains(ports, name) {
				ports = append(ports, name)
			}
		}
	}
	slices.Sort(ports)
	return ports
}

// paths are what a stranger may ask each port for.
var paths = []string{"/", "/healthz", "/readyz", "/status", "/checkpoint", "/metrics", "/health", "/version",
	"/debug/vars", "/v3/kv/range", "/page/x/"}

// answers lists the paths that are answered with a page, as "plain /healthz".
func answers(t *testing.T, as *security.Transport, to security.Role, address string) (got []string) {
	t.Helper()
	c := client(as, to)
	for _, scheme := range []string{"http", "https"} {
		for _, path := range paths {
			r, err := c.Get(scheme + "://" + address + path)
			if err != nil {
				continue
			}
			_ = r.Body.Close()
			if r.StatusCode < 300 || r.StatusCode == http.StatusServiceUnavailable {
				got = append(got, map[string]string{"http": "plain", "https": "https"}[scheme]+" "+path)
			}
		}
	}
	return got
}

// checkPorts knocks from the host, which reaches every container by its bridge address: what listens, and which callers
// are answered.
func checkPorts(t *testing.T, s *stack) {
	t.Helper()
	other, _, err := security.OpenAuthority(filepath.Join(t.TempDir(), "ca"), jobName, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if _, err := other.Issue(dir, security.Operator, time.Hour); err != nil {
		t.Fatal(err)
	}
	keys, err := security.Load(security.FilesIn(dir), security.Identity{Role: security.Operator, Job: jobName})
	if err != nil {
		t.Fatal(err)
	}
	callers := map[string]*security.Transport{"a stranger": nil, "one of another authority": security.Over(keys),
		"metrics": s.over(security.Metrics), "operator": s.over(security.Operator), "worker": s.over(security.Worker)}
	probes := []string{"plain /healthz", "plain /readyz"}
	// etcd's
	pages := []string{"https /readyz", "https /metrics", "https /health", "https /version", "https /debug/vars"}
	for service, want := range map[security.Role]map[string]map[string][]string{ // port, caller, what it gets
		security.Etcd: {"2379": {"operator": pages, "worker": pages}},
		security.Coordinator: {"7070": {}, "8080": {"*": probes},
			"8443": {"metrics": {"https /metrics"}, "operator": {"https /status", "https /checkpoint",
				"https /metrics"}}},
		security.Worker: {"7070": {}, "8443": {"metrics": {"https /metrics"}, "operator": {"https /metrics"}}},
	} {
		id := s.containers(string(service))[0]
		ports := listening(t, id)
		for _, port := range ports {
			expected, known := want[port]
			if !known {
				t.Errorf("%s listens on port %s", service, port)
			}
			for _, ip := range addresses(t, id) {
				for caller, as := range callers {
					got := answers(t, as, service, net.JoinHostPort(ip, port))
					if e := append(slices.Clone(expected["*"]), expected[caller]...); !slices.Equal(got, e) {
						t.Errorf("%s answers %s at port %s: %q, expected %q", service, caller, port, got, e)
					}
					t.Logf("%s %s:%s, asked by %s: %q", service, ip, port, caller, got)
				}
			}
		}
		if len(ports) != len(want) {
			t.Errorf("%s listens on %v, expected %d ports", service, ports, len(want))
		}
	}
	s.checkEtcd(callers)
}

// checkEtcd asks etcd over gRPC as each caller does that has a certificate.
func (s *stack) checkEtcd(callers map[string]*security.Transport) {
	s.t.Helper()
	endpoint := "https://" + addresses(s.t, s.containers("etcd")[0])[0] + ":2379"
	for caller, may := range map[string]bool{"operator": true, "worker": true, "metrics": false,
		"one of another authority": false} {
		c, err := cluster.DialOver(callers[caller], []string{endpoint}, jobName)
		if err != nil {
			s.t.Fatal(err)
		}
		within := bound
		if !may { // it dials again and again
			within = 5 * time.Second
		}
		ctx, stop := context.WithTimeout(s.t.Context(), within)
		_, err = c.Read(ctx)
		stop()
		_ = c.Close()
		if (err == nil) != may {
			s.t.Errorf("etcd, asked by %s: %v; may: %v", caller, err, may)
		}
	}
}
