package local

import (
	"fmt"
	"net/netip"
)

// PageAddress is where the live page of a run is served: on loopback, for it is plain HTTP, and on one port for the
// whole run, so that a page that is open finds a coordinator that was started again. Port 0 becomes a free one.
func PageAddress(asked string) (string, error) {
	if asked == "" {
		return "", nil
	}
	a, err := netip.ParseAddrPort(asked)
	if err != nil || !a.Addr().IsLoopback() {
		return "", fmt.Errorf("%q: must be an address of this machine's loopback, as 127.0.0.1:8080; to see the "+
			"page from "+
			"another machine, forward a port (ssh -L)", asked)
	}
	if a.Port() != 0 {
		return asked, nil
	}
	l, err := listenLow(a.Addr().String())
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}
