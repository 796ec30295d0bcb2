package chaos

import (
	"context"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"evenweave/internal/local"
)

// network knows the processes of a run. With proxies before each worker, and between each worker and etcd, it can hold
// back what one process sends to another. Nothing is lost and no connection breaks, as when packets are dropped.
type network struct {
	proxies bool
	ctx     context.Context
	cancel  context.CancelFunc
	tasks   sync.WaitGroup

	mu       sync.Mutex
	pids     map[string]int    // by process
	process  map[string]string // by member id
	fronts   map[string]net.Listener
	sequence int
	cuts     map[int]cut
	changed  chan struct{}      // closed, and replaced, when cuts changes
	links    map[*link]struct{} // the connections that are open
}

// link is a connection from a process. source walks through /proc to find the process, so it is called only while
// something is cut: on a busy machine, a walk for each connection left no time for the connections.
type link struct{ source func() string }

// cut reports whether to hold back what src sends to dst; both are names of processes.
type cut func(src, dst string) bool

func newNetwork(proxies bool) *network {
	n := &network{proxies: proxies, pids: map[string]int{}, process: map[string]string{},
		fronts: map[string]net.Listener{}, cuts: map[int]cut{}, changed: make(chan struct{}),
		links: map[*link]struct{}{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

func (n *network) close() {
	n.cancel()
	n.tasks.Wait()
}

// started records a process's pid. It closes a dead worker's proxy, because a dead worker refuses connections.
func (n *network) started(process string, pid int) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.pids[process] = pid
	front := n.fronts[process]
	if front == nil {
		return
	}
	delete(n.fronts, process)
	n.tasks.Go(func() {
		defer front.Close()
		for syscall.Kill(pid, 0) == nil {
			select {
			case <-n.ctx.Done():
				return
			case <-time.After(20 * time.Millisecond):
			}
		}
	})
}

// pid returns the pid of a process or of a member's process; 0: none was started.
func (n *network) pid(name string) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	if process, ok := n.process[name]; ok {
		name = process
	}
	return n.pids[name]
}

func (n *network) processOf(member string) string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.process[member]
}

// adapt gives a worker addresses of proxies.
func (n *network) adapt(process string, what local.Launch) local.Launch {
	if what.Role != local.Worker {
		return what
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process[what.Settings["id"]] = process
	if !n.proxies {
		return what
	}
	back, _, err := local.FreePorts()
	if err != nil {
		return what
	}
	front, err := n.serve(n.identify, process, back)
	if err != nil {
		return what
	}
	n.fronts[process] = front
	etcd, err := n.serve(func(net.Conn) string { return process }, "etcd",
		strings.TrimPrefix(what.Settings["etcd"], "http://"))
	if err != nil {
		return what
	}
	return what.With(map[string]string{"etcd": "http://" + etcd.Addr().String(), "listen": back,
		"advertise": front.Addr().String()})
}

// cut holds back the traffic that c names until restore is called.
func (n *network) cut(c cut) (restore func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sequence++
	id := n.sequence
	n.cuts[id] = c
	for l := range n.links { // now: a process that dies behind the cut can no longer be identified
		n.tasks.Go(func() { l.source() })
	}
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.cuts, id)
		close(n.changed)
		n.changed = make(chan struct{})
	}
}

// open adds a connection; close removes it.
func (n *network) open(source func() string) (l *link, close func()) {
	l = &link{sync.OnceValue(source)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.links[l] = struct{}{}
	if len(n.cuts) > 0 {
		n.tasks.Go(func() { l.source() })
	}
	return l, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.links, l)
	}
}

// pass waits until src's bytes may reach dst; false when the network is closed.
func (n *network) pass(src, dst func() string) bool {
	for {
		n.mu.Lock()
		cuts, changed := slices.Collect(maps.Values(n.cuts)), n.changed
		n.mu.Unlock()
		if !slices.ContainsFunc(cuts, func(c cut) bool { return c(src(), dst()) }) {
			return n.ctx.Err() == nil
		}
		select {
		case <-changed:
		case <-n.ctx.Done():
			return false
		}
	}
}

// serve forwards connections to a process until its listener or the network is closed.
func (n *network) serve(source func(net.Conn) string, process, target string) (net.Listener, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	context.AfterFunc(n.ctx, func() { _ = l.Close() })
	n.tasks.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.tasks.Go(func() { n.forward(c, func() string { return source(c) }, process, target) })
		}
	})
	return l, nil
}

func (n *network) forward(client net.Conn, source func() string, process, target string) {
	link, forget := n.open(source)
	defer forget()
	server, err := new(net.Dialer).DialContext(n.ctx, "tcp", target)
	if err != nil {
		_ = client.(*net.TCPConn).SetLinger(0) // a reset: the closest to a refusal
		_ = client.Close()
		return
	}
	end := func() { _ = client.Close(); _ = server.Close() }
	stop := context.AfterFunc(n.ctx, end)
	defer stop()
	dst := func() string { return process }
	var back sync.WaitGroup
	back.Go(func() { n.pump(client, server, dst, link.source); end() })
	n.pump(server, client, link.source, dst)
	end()
	back.Wait()
}

// pump carries bytes one way. A cut holds back the end of the stream too: it hides the death of a process.
func (n *network) pump(to, from net.Conn, src, dst func() string) {
	b := make([]byte, 64<<10)
	for {
		k, err := from.Read(b)
		if !n.pass(src, dst) {
			return
		}
		if k > 0 {
			if _, err := to.Write(b[:k]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// identify finds the process at the other end of a connection by its socket in /proc; "": unknown.
func (n *network) identify(c net.Conn) string {
	a, ok := c.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return ""
	}
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		return ""
	}
	inode, local := "", fmt.Sprintf("0100007F:%04X", a.Port)
	for line := range strings.Lines(string(table)) {
		if f := strings.Fields(line); len(f) > 9 && f[1] == local && f[3] == "01" {
			inode = "socket:[" + f[9] + "]"
		}
	}
	n.mu.Lock()
	pids := maps.Clone(n.pids)
	n.mu.Unlock()
	for process, pid := range pids {
		links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		for _, link := range links {
			if to, err := os.Readlink(link); err == nil && to == inode {
				return process
			}
		}
	}
	return ""
}
