package local_test

import (
	"net/http"
	"strings"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
)

// TestNoPageReachesEtcd: what a web page in the user's browser can send writes nothing and reads nothing, whatever it
// says of its origin and host.
func TestNoPageReachesEtcd(t *testing.T) {
	endpoint := etcdtest.StartTCP(t).Endpoint()
	c, err := cluster.Dial([]string{endpoint}, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.SetWorkers(t.Context(), 2); err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Timeout: deadline}
	defer client.CloseIdleConnections()
	for _, host := range []string{"", "rebound.example"} {
		const five = `{"key":"L2V2ZW53ZWF2ZS90ZXN0L3dvcmtlcnM=","value":"NQ=="}` // the key of the worker count
		r, err := http.NewRequest(http.MethodPost, endpoint+"/v3/kv/put", strings.NewReader(five))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "text/plain")
		r.Header.Set("Origin", "https://evil.example")
		r.Host = host
		answer, err := client.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = answer.Body.Close()
		if answer.StatusCode < 400 || answer.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("host %q: status %s, headers %v", host, answer.Status, answer.Header)
		}
	}
	if v, err := c.Read(t.Context()); err != nil || v.Workers != 2 {
		t.Errorf("%d workers are wanted, %v; 2 were before", v.Workers, err)
	}
}
