package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"evenweave/internal/job"
	"evenweave/internal/security"
)

const maxSocketPath = 103 // what every system takes

// Endpoints returns etcd's client URLs in one form: it adds a missing http:// and drops a last slash and spaces. It
// refuses an impossible endpoint by name.
func Endpoints(given []string) ([]string, error) {
	var out []string
	for _, g := range given {
		e := strings.TrimRight(strings.TrimSpace(g), "/")
		if e == "" {
			continue
		}
		if strings.HasPrefix(e, "unix:") {
			path, ok := security.SocketPath(e)
			if !ok || len(path) > maxSocketPath {
				return nil, fmt.Errorf("--etcd %q: expected unix:PATH with an absolute path of at most %d bytes",
					job.Clean(g), maxSocketPath)
			}
			out = append(out, "unix:"+path)
			continue
		}
		if !strings.Contains(e, "://") {
			e = "http://" + e
		}
		if strings.ContainsAny(e, " \t;") {
			return nil, fmt.Errorf("--etcd %q: separate several endpoints by a comma, for example "+
				"http://a:2379,http://b:2379", job.Clean(g))
		}
		u, err := url.Parse(e)
		switch {
		case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "":
			return nil, fmt.Errorf("--etcd %q: expected http://HOST:PORT or https://HOST:PORT", job.Clean(g))
		case u.User != nil:
			return nil, errors.New("--etcd: a user's name and password in the URL are not supported")
		case u.Path != "" || u.RawQuery != "" || u.Fragment != "":
			return nil, fmt.Errorf("--etcd %q: an endpoint has no path; the job's name is given by --job", job.Clean(g))
		case u.Port() == "":
			return nil, fmt.Errorf("--etcd %q: the port is missing; etcd's clients mostly use 2379", job.Clean(g))
		}
		if err := job.CheckAddress(u.Host); err != nil {
			return nil, fmt.Errorf("--etcd %w", err)
		}
		out = append(out, e)
	}
	for _, e := range out {
		if strings.HasPrefix(e, "unix:") && len(out) > 1 {
			return nil, fmt.Errorf("--etcd %q: a socket is the only endpoint of its cluster", job.Clean(e))
		}
	}
	if len(out) == 0 {
		return nil, errors.New("no etcd endpoint given: name at least one with --etcd")
	}
	return out, nil
}

// hostPort is the address of an endpoint that Endpoints has returned; "" if it has none.
func hostPort(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil {
		return u.Host
	}
	return ""
}

// explain adds the cause to an error of an etcd that does not answer, if it finds one within a second.
func (c *Client) explain(ctx context.Context, err error) error {
	if err == nil || errors.As(err, new(*BadRecord)) {
		return err
	}
	if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
		return fmt.Errorf("etcd at %s: %w", strings.Join(c.endpoints, ", "), err)
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	var why []string
	for _, e := range c.endpoints {
		why = append(why, e+": "+c.diagnose(ctx, e))
	}
	return fmt.Errorf("etcd does not answer: %s (%w)", strings.Join(why, "; "), err)
}

// diagnose asks an endpoint for its health and returns the finding in words.
func (c *Client) diagnose(ctx context.Context, endpoint string) string {
	if path, ok := security.SocketPath(endpoint); ok {
		if _, err := os.Stat(path); err != nil {
			return err.Error()
		}
		return "no answer"
	}
	status, body, err := c.health(ctx, endpoint)
	if err != nil {
		if plain, ok := strings.CutPrefix(endpoint, "https://"); ok {
			if _, _, err := c.health(ctx, "http://"+plain); err == nil {
				return "it speaks plain HTTP: write http:// instead of https://"
			}
		}
		if errors.Is(err, context.DeadlineExceeded) {
			return "nothing answers there: is the address right, and does a firewall let it through?"
		}
		return job.Clean(err.Error())
	}
	switch {
	case strings.Contains(body, "HTTP request to an HTTPS server"):
		return "it speaks TLS: write https:// instead of http://"
	case status == http.StatusNotFound:
		return "an HTTP server, but not etcd's client port: is it its peer port (mostly 2380)? clients mostly use 2379"
	case status == http.StatusOK:
		return "it reports that it is healthy, but did not answer in time"
	}
	return "it reports that it is not healthy: " + job.Clean(body)
}

// health asks without a proxy.
func (c *Client) health(ctx context.Context, endpoint string) (status int, body string, err error) {
	transport := &http.Transport{DialContext: (&net.Dialer{}).DialContext, DisableKeepAlives: true}
	defer transport.CloseIdleConnections()
	transport.TLSClientConfig = c.over.HTTPClient(security.Etcd)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, endpoint+"/health", nil)
	if err != nil {
		return 0, "", err
	}
	r, err := (&http.Client{Transport: transport}).Do(request)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // without the address, which the caller adds
	}
	if err != nil {
		return 0, "", err
	}
	defer r.Body.Close()
	text, err := io.ReadAll(io.LimitReader(r.Body, 1<<10))
	return r.StatusCode, string(text), err
}
