package local

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"strconv"
)

// PageAddress returns the address of a run's live page. It is on loopback, because the page is plain HTTP, and its port
// stays the same for the whole run, so that an open page reaches a restarted coordinator. Port 0 becomes a free port.
func PageAddress(asked string) (string, error) {
	if asked == "" {
		return "", nil
	}
	a, err := netip.ParseAddrPort(asked)
	if err != nil || !a.Addr().IsLoopback() {
		return "", fmt.Errorf("%q: must be an address of this machine's loopback, as 127.0.0.1:8080; to see the "+
			"page from another machine, forward a port (ssh -L)", asked)
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

// listenLow listens at a port below those of outgoing connections, so that none of them takes the page's port while the
// coordinator restarts. It tries random ports, because other runs choose at the same time.
func listenLow(host string) (net.Listener, error) {
	const first, ports = 20000, 12768 // Linux gives 32768 and more
	for range 100 {
		if l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(first+rand.IntN(ports)))); err == nil {
			return l, nil
		}
	}
	return net.Listen("tcp", net.JoinHostPort(host, "0"))
}
