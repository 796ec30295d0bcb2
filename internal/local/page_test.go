package local

import (
	"net/netip"
	"testing"
)

func TestPageAddress(t *testing.T) {
	for _, asked := range []string{"", "127.0.0.1:8080", "[::1]:8080", "127.3.2.1:9"} {
		if got, err := PageAddress(asked); got != asked || err != nil {
			t.Errorf("%q: %q, %v", asked, got, err)
		}
	}
	for _, asked := range []string{"0.0.0.0:8080", ":8080", "[::]:8080", "10.0.0.1:80", "example.org:80", "127.0.0.1",
		"127.0.0.1:x", "x"} {
		if got, err := PageAddress(asked); err == nil {
			t.Errorf("%q is no loopback address, and gives %q", asked, got)
		}
	}
	got, err := PageAddress("127.0.0.1:0")
	if a, bad := netip.ParseAddrPort(got); err != nil || bad != nil || a.Port() == 0 || !a.Addr().IsLoopback() {
		t.Errorf("a free port: %q, %v", got, err)
	}
}
