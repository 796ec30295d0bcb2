package cluster

import (
	"net"
	"strings"
	"testing"
)

// TestAnAddressThatLeadsNowhereIsNamed warns of a loopback address where etcd's address or the listener's shows that
// other machines take part.
func TestAnAddressThatLeadsNowhereIsNamed(t *testing.T) {
	for _, c := range []struct {
		address, listening, etcd string
		warned                   bool
	}{
		{"127.0.0.1:7070", "127.0.0.1", "http://127.0.0.1:2379", false},
		{"127.0.0.1:7070", "127.0.0.1", "http://localhost:2379", false},
		{"[::1]:7070", "::1", "http://[::1]:2379", false},
		{"127.0.0.1:7070", "127.0.0.1", "http://192.0.2.1:2379", true},
		{"localhost:7070", "127.0.0.1", "https://[2001:db8::1]:2379", true},
		{"[::1]:7070", "::1", "http://192.0.2.1:2379", true},
		{"127.0.0.1:7070", "0.0.0.0", "http://127.0.0.1:2379", true},
		{"192.0.2.7:7070", "0.0.0.0", "http://192.0.2.1:2379", false},
		{"10.0.0.1:7070", "127.0.0.1", "http://192.0.2.1:2379", false},
	} {
		got := onlyHere(c.address, &net.TCPAddr{IP: net.ParseIP(c.listening), Port: 7070}, []string{c.etcd})
		if (got != "") != c.warned || c.warned && !strings.Contains(got, "--advertise") {
			t.Errorf("%+v: %q", c, got)
		}
	}
}
