package bench

import (
	"io"
	"net"
)

// tcpRing moves the bytes of an all-reduce over plain TCP, hop by hop in a ring's pattern, and does nothing with them:
// a bound that no all-reduce over this loopback beats by much.
type tcpRing struct {
	size        int
	left, right net.Conn
	buf, chunk  []byte
	send        chan []byte
	sent        chan error
}

// openTCP joins a member to its neighbours: it accepts the left one's connection while it connects to the right one.
func openTCP(socket net.Listener, right string, size int) (*tcpRing, error) {
	type accepted struct {
		conn net.Conn
		err  error
	}
	from := make(chan accepted, 1)
	go func() {
		conn, err := socket.Accept()
		from <- accepted{conn, err}
	}()
	to, err := net.Dial("tcp", right)
	if err != nil {
		return nil, err
	}
	left := <-from
	if left.err != nil {
		_ = to.Close()
		return nil, left.err
	}
	r := &tcpRing{size: size, left: left.conn, right: to, send: make(chan []byte), sent: make(chan error, 1)}
	go func() { // ends with close
		for b := range r.send {
			_, err := r.right.Write(b)
			r.sent <- err
		}
	}()
	return r, nil
}

func (r *tcpRing) close() {
	close(r.send)
	_ = r.left.Close()
	_ = r.right.Close()
}

func (r *tcpRing) resize(bytes int) {
	r.buf = make([]byte, (bytes+r.size-1)/r.size)
	r.chunk = make([]byte, len(r.buf))
}

// exchange sends a chunk to the right and receives one from the left in each of 2(N-1) hops.
func (r *tcpRing) exchange() error {
	for range 2 * (r.size - 1) {
		r.send <- r.buf
		if _, err := io.ReadFull(r.left, r.chunk); err != nil {
			return err
		}
		if err := <-r.sent; err != nil {
			return err
		}
	}
	return nil
}
