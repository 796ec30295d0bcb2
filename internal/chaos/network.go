package chaos

import (
	"context"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"

	"evenweave/internal/local"
	"evenweave/internal/security"
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
	names    map[int]string    // of processes, by pid; one that has died keeps its name
	process  map[string]string // by member id
	fronts   map[string]net.Listener
	sequence int
	cuts     map[int]cut
	changed  chan struct{} // closed, and replaced, when cuts changes
}

// cut reports whether to hold back what src sends to dst; both are names of processes.
type cut func(src, dst string) bool

func newNetwork(proxies bool) *network {
	n := &network{proxies: proxies, pids: map[string]int{}, process: map[string]string{},
		fronts: map[string]net.Listener{}, cuts: map[int]cut{}, changed: make(chan struct{}),
		names: map[int]string{}}
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
	n.pids[process], n.names[pid] = pid, process
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
	over := security.For([]string{what.Settings["etcd"]})
	etcd, ok := security.SocketPath(what.Settings["etcd"])
	if !ok {
		return what
	}
	id := what.Settings["id"]
	front, err := n.serve(over, "unix:"+id+"-front.sock", "", process, what.Settings["listen"])
	if err != nil {
		return what
	}
	n.fronts[process] = front
	name := id + "-etcd.sock"
	if _, err := n.serve(over, "unix:"+name, process, "etcd", "unix:"+filepath.Base(etcd)); err != nil {
		return what
	}
	return what.With(map[string]string{"etcd": "unix:" + filepath.Join(filepath.Dir(etcd), name),
		"advertise": "unix:" + id + "-front.sock"})
}

// cut holds back the traffic that c names until restore is called.
func (n *network) cut(c cut) (restore func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.sequence++
	id := n.sequence
	n.cuts[id] = c
	return func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.cuts, id)
		close(n.changed)
		n.changed = make(chan struct{})
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

// serve listens at an address and forwards connections from source ("": the process that dials) to a process at target
// until its listener or the network is closed.
func (n *network) serve(over *security.Transport, address, source, process, target string) (net.Listener, error) {
	l, err := over.Listen(address)
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
			n.tasks.Go(func() {
				server, err := over.Dial(n.ctx, target)
				if err != nil {
					_ = c.Close()
					return
				}
				n.forward(c, server, source, process)
			})
		}
	})
	return l, nil
}

func (n *network) forward(client, server net.Conn, source, process string) {
	peer := peerPID(client)
	src := func() string {
		if source != "" {
			return source
		}
		n.mu.Lock()
		defer n.mu.Unlock()
		return n.names[peer]
	}
	end := func() { _ = client.Close(); _ = server.Close() }
	stop := context.AfterFunc(n.ctx, end)
	defer stop()
	dst := func() string { return process }
	var back sync.WaitGroup
	back.Go(func() { n.pump(client, server, dst, src); end() })
	n.pump(server, client, src, dst)
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
