package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"time"

	"evenweave/internal/security"
)

// Advertised returns the address to advertise: the one asked for, else the listener's. If that is every interface, it
// is the address of the route to etcd, because peers are usually where etcd is. It warns of one that peers cannot
// reach.
func Advertised(asked string, listening net.Addr, endpoints []string, log *slog.Logger) (string, error) {
	address, err := advertised(asked, listening, endpoints)
	if err != nil {
		return "", err
	}
	if warning := onlyHere(address, listening, endpoints); warning != "" {
		log.Warn(warning)
	}
	return address, nil
}

func advertised(asked string, listening net.Addr, endpoints []string) (string, error) {
	if socket, ok := security.Address(listening); ok {
		if asked != "" {
			return asked, nil
		}
		return socket, nil
	}
	_, port, err := net.SplitHostPort(listening.String())
	if err != nil {
		return "", err
	}
	if asked != "" {
		if _, _, err := net.SplitHostPort(asked); err == nil {
			return asked, nil
		}
		return net.JoinHostPort(asked, port), nil
	}
	host, _, _ := net.SplitHostPort(listening.String())
	if ip := net.ParseIP(host); ip == nil || !ip.IsUnspecified() {
		return listening.String(), nil
	}
	var why []error
	for _, e := range endpoints {
		c, err := net.Dial("udp", hostPort(e)) // sends nothing: it only asks the routing table
		if err != nil {
			why = append(why, err)
			continue
		}
		local := c.LocalAddr().(*net.UDPAddr).IP.String()
		_ = c.Close()
		return net.JoinHostPort(local, port), nil
	}
	return "", fmt.Errorf(
		"cannot find an address that peers can reach, because there is no route to etcd: %w; correct "+
			"--etcd, or give the address with --advertise", errors.Join(why...))
}

// onlyHere returns a warning if the address is a loopback address but other machines seem to take part: the process
// listens on every interface, or etcd is on another machine. Peers would dial themselves. "": no warning.
func onlyHere(address string, listening net.Addr, endpoints []string) string {
	host, _, _ := net.SplitHostPort(address)
	if !loopback(host) {
		return ""
	}
	for _, e := range endpoints {
		if elsewhere(hostPort(e)) {
			return fmt.Sprintf("%s leads every machine to itself, and etcd (%s) is not at a loopback address: if "+
				"other machines take part, choose another --listen, or name this machine's address by --advertise",
				address, e)
		}
	}
	if l, ok := listening.(*net.TCPAddr); ok && l.IP.IsUnspecified() {
		return fmt.Sprintf("%s, the address on the way to etcd, leads every machine to itself: if other machines "+
			"take part, name this machine's address by --advertise", address)
	}
	return ""
}

// elsewhere says whether a host:port is known to be reached by another interface than loopback.
func elsewhere(hostPort string) bool {
	host, _, err := net.SplitHostPort(hostPort)
	if err != nil || loopback(host) {
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host) // an address is found without asking
	return err == nil && !slices.ContainsFunc(found, netip.Addr.IsLoopback)
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}
