package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
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

// listenLow listens below the ports that systems give to outgoing connections, so that none of those can take the
// page's while the coordinator is started again. It tries ports by chance: other runs choose theirs at the same time.
func listenLow(host string) (net.Listener, error) {
	const first, ports = 20000, 12768 // Linux gives 32768 and more
	for range 100 {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+rand.IntN(ports)))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}
