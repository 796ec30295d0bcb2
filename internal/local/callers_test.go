package local_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"
	pb "google.golang.org/protobuf/proto"

	"evenweave"
	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/security"
	"evenweave/proto"
	"evenweave/worker"
)

// caller is a connection to a member, over HTTP/2 and with a certificate, whose frames the test writes itself. It lets
// the member send no data.
type caller struct {
	t       *testing.T
	conn    net.Conn
	framer  *http2.Framer
	fields  bytes.Buffer
	encoder *hpack.Encoder
	err     error // of the first write that failed
}

func calls(t *testing.T, as *security.Transport, address string) *caller {
	t.Helper()
	config := as.HTTPClient(security.Worker)
	config.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(5 * deadline))
	all := &caller{t: t, conn: c, framer: http2.NewFramer(c, c)}
	all.encoder = hpack.NewEncoder(&all.fields)
	all.framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if _, err = c.Write([]byte(http2.ClientPreface)); err == nil {
		err = all.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	}
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// begin begins a call on a stream.
func (c *caller) begin(stream uint32, method, contentType string) {
	c.fields.Reset()
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", method}, {":authority", "x"},
		{"content-type", contentType}, {"te", "trailers"}} {
		_ = c.encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	if err := c.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: c.fields.Bytes(),
		EndHeaders: true}); c.err == nil {
		c.err = err
	}
}

func (c *caller) send(stream uint32, last bool, b []byte) {
	if err := c.framer.WriteData(stream, last, b); c.err == nil {
		c.err = err
	}
}

// message is what gRPC puts before a message of n bytes.
func message(n int) []byte { return binary.BigEndian.AppendUint32([]byte{0}, uint32(n)) }

// asks asks for the state of a step on all streams of a connection, and takes none. It counts the replies until ctx
// ends: four of a member begin, the others are refused.
func (a *requests) asks(ctx context.Context, c *caller, job string, step int64) {
	defer context.AfterFunc(ctx, func() { _ = c.conn.Close() })()
	request, err := pb.Marshal(&proto.StateRequest{Job: job, Step: step})
	if err != nil {
		c.t.Error(err)
	}
	const streams = 32 // of a connection
	for i := range uint32(streams) {
		c.begin(2*i+1, proto.Member_State_FullMethodName, "application/grpc")
		c.send(2*i+1, true, slices.Concat(message(len(request)), request))
	}
	if c.err != nil {
		c.t.Errorf("asking for states: %v", c.err)
	}
	a.asked.Add(streams)
	for begun, open := map[uint32]bool{}, streams; open > 0; {
		frame, err := c.framer.ReadFrame()
		if err != nil {
			if ctx.Err() == nil {
				c.t.Errorf("%d states are not answered: %v", open, err)
			}
			return
		}
		h, ok := frame.(*http2.MetaHeadersFrame)
		if !ok {
			continue
		}
		if !h.StreamEnded() {
			begun[h.StreamID] = true
			a.sending.Add(1)
			continue
		}
		// The end of a state that is sent waits behind what the caller does not take.
		if code := statusOf(h); begun[h.StreamID] || code != codes.ResourceExhausted && code != codes.NotFound {
			a.strange.Add(1)
		}
		open--
		a.ended.Add(1)
	}
}

func statusOf(h *http2.MetaHeadersFrame) codes.Code {
	for _, f := range h.Fields {
		if f.Name == "grpc-status" {
			n, err := strconv.Atoi(f.Value)
			if err != nil {
				return codes.Unknown
			}
			return codes.Code(n)
		}
	}
	return codes.Unknown
}

// saysHello opens a ring's stream and sends its first message in small frames, but not to its end: then a byte a
// second. The member gives the stream up.
func (c *caller) saysHello() {
	c.begin(1, "/evenweave.Ring/Link", "application/grpc+evenweave-frame")
	for m := append(message(60_000), make([]byte, 50*1025)...); len(m) > 0; {
		n := min(1025, len(m))
		c.send(1, false, m[:n])
		m = m[n:]
	}
	if c.err != nil {
		c.t.Errorf("sending most of a message: %v", c.err)
	}
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		for {
			frame, err := c.framer.ReadFrame()
			if err != nil {
				c.t.Errorf("a slow message: %v, expected the end of the stream", err)
				return
			}
			if h, ok := frame.(*http2.MetaHeadersFrame); ok && h.StreamEnded() {
				return
			}
		}
	}()
	for {
		select {
		case <-gone:
			return
		case <-time.After(time.Second):
			c.send(1, false, []byte{0})
		}
	}
}

// drip is a caller that sends its first bytes, and then one a second.
type drip struct {
	c     net.Conn
	first string
}

// drips are slow callers of each port: in a handshake, in a page's headers and body, and in the start of HTTP/2.
func (s *secured) drips(worker, operator *security.Transport, ports []string, member string) map[string]drip {
	s.t.Helper()
	over := func(port string, config *tls.Config) net.Conn {
		c := fills(s.t, port, 1)[0]
		if config == nil {
			return c
		}
		return tls.Client(c, config)
	}
	ring := worker.HTTPClient(security.Worker)
	ring.NextProtos = []string{"h2"}
	const get = "GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nSlow: "
	all := map[string]drip{
		"a header":          {over(s.open, nil), get},
		"a header over TLS": {over(s.pages, operator.HTTPClient(security.Coordinator)), get},
		"a body": {over(s.open, nil),
			"POST /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 999\r\n\r\n"},
		"the start of HTTP/2": {over(member, ring), "PRI * HT"},
	}
	for _, port := range ports {
		if port != s.open {
			all["a handshake with "+port] = drip{over(port, nil), "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"}
		}
	}
	return all
}

// givenUp checks that the other end closes the connection.
func (d drip) givenUp(t *testing.T, name string) {
	defer d.c.Close()
	_ = d.c.SetReadDeadline(time.Now().Add(2 * deadline))
	gone := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, d.c)
		gone <- err
	}()
	if _, err := io.WriteString(d.c, d.first); err != nil {
		t.Errorf("%s: %v", name, err)
	}
	for {
		select {
		case err := <-gone:
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s, a byte a second: %v, expected the end of the connection", name, err)
			}
			return
		case <-time.After(time.Second):
			_, _ = io.WriteString(d.c, "x")
		}
	}
}

// wide is the tiny model with a state of 1 MiB, which no buffer holds.
type wide struct {
	*example.Softmax
	more evenweave.Floats
}

func newWide() wide { return wide{example.NewSoftmax(), make(evenweave.Floats, 256<<10)} }

// Tensors implements evenweave.Model.
func (w wide) Tensors() []evenweave.Tensor {
	return append(w.Softmax.Tensors(), evenweave.Tensor{Name: "more", Type: evenweave.Float32,
		Shape: []int{len(w.more)}, Role: evenweave.Kept})
}

// Read implements evenweave.Model.
func (w wide) Read(tensor int, offset int64, p []byte) error {
	if tensor == 1 {
		return w.more.Read(offset, p)
	}
	return w.Softmax.Read(tensor, offset, p)
}

// Write implements evenweave.Model.
func (w wide) Write(tensor int, offset int64, p []byte) error {
	if tensor == 1 {
		return w.more.Write(offset, p)
	}
	return w.Softmax.Write(tensor, offset, p)
}

// wideTask is wide as a coordinator uses it.
type wideTask struct{ wide }

// Evaluate implements evenweave.Evaluator.
func (w wideTask) Evaluate(ctx context.Context, data evenweave.Data) ([]evenweave.Figure, error) {
	return tinyTask{w.Softmax}.Evaluate(ctx, data)
}

// wideOf is gated for it.
func wideOf(gate func(step int64)) func(context.Context, job.Job) (worker.Opened, error) {
	return func(context.Context, job.Job) (worker.Opened, error) {
		return worker.Opened{Model: newWide(), Data: gatedPoints{example.Points{}, gate}, Numerics: golden}, nil
	}
}
