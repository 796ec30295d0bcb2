package local_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/progress"
	"evenweave/internal/security"
	"evenweave/proto"
)

// TestLoadStopsNoStep: callers that say nothing, say it slowly, ask for much and read nothing, or come again and again,
// with a stolen certificate too, cost a bounded amount of memory, stop no step, and are all given up.
func TestLoadStopsNoStep(t *testing.T) {
	s := startSecured(t, 600)
	want := calmRun(t, s.steps)
	s.hire("a", time.Hour)
	s.hire("b", time.Hour)
	operator := s.authority.over("operator", security.Operator, "test")
	await(t, s.events, "a world of two", func(w progress.World) bool { return w.Size == 2 })
	await(t, s.events, "a step", func(e progress.Step) bool { return e.Step > int(s.steps/3) })
	v := records(t, operator, s.endpoint())
	ports := []string{s.pages, v.Leader.Address, v.Members[0].Address, v.Members[1].Address}
	before := heap()

	ctx, stop := context.WithCancel(t.Context())
	var callers sync.WaitGroup
	defer callers.Wait()
	defer stop()
	var silent []net.Conn
	var halves []*http2.Framer
	for _, port := range ports {
		for range 40 { // fewer than the places, so that all are given up in one round
			silent = append(silent, dialed(t, port))
		}
		callers.Go(func() { drips(ctx, port) })
		callers.Go(func() { comesAgain(ctx, port) })
	}
	stolen := s.over["b"]
	for range 8 {
		callers.Go(func() { asksForStates(ctx, t, stolen, v.Members[0].Address, v.Job.UUID) })
		halves = append(halves, saysHalf(t, stolen, v.Members[0].Address))
	}
	s.stepOn("steps under load", 5)
	if grown := heap() - before; grown > 64<<20 {
		t.Errorf("the load took %d bytes of memory", grown)
	}
	for _, c := range silent {
		_ = c.SetReadDeadline(time.Now().Add(deadline))
		if _, err := io.Copy(io.Discard, c); err != nil {
			t.Errorf("a silent caller: %v, expected the end of the connection", err)
		}
		_ = c.Close()
	}
	for _, f := range halves {
		for ended := false; !ended; {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Errorf("half a message: %v, expected the end of the stream", err)
				break
			}
			h, ok := frame.(*http2.HeadersFrame)
			ended = ok && h.StreamEnded()
		}
	}
	stop()
	callers.Wait()
	s.stepOn("steps after it", 5)
	if why := s.unplanned(v.World.Generation); len(why) > 0 {
		t.Errorf("the load broke a step: %q", why)
	}
	s.finish(want)
}

// heap is the memory in use.
func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse + m.StackInuse)
}

func dialed(t *testing.T, port string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// drips begins a handshake and sends a byte of it now and then.
func drips(ctx context.Context, port string) {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", port)
	if err != nil {
		return
	}
	defer c.Close()
	for _, b := range []byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03") {
		if _, err := c.Write([]byte{b}); err != nil || !waits(ctx, time.Second) {
			return
		}
	}
	<-ctx.Done()
}

// comesAgain makes and drops ten connections a second.
func comesAgain(ctx context.Context, port string) {
	for waits(ctx, 100*time.Millisecond) {
		if c, err := new(net.Dialer).DialContext(ctx, "tcp", port); err == nil {
			_ = c.Close()
		}
	}
}

func waits(ctx context.Context, d time.Duration) bool {
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

// asksForStates asks for more than are sent at a time, on all streams of a connection, and reads nothing.
func asksForStates(ctx context.Context, t *testing.T, as *security.Transport, address, job string) {
	c, err := grpc.NewClient("passthrough:///"+address, as.Options(security.Worker)...)
	if err != nil {
		t.Error(err)
		return
	}
	defer c.Close()
	for range 40 { // with eight callers: more than the streams of a connection, and of states
		asking, stop := context.WithTimeout(ctx, time.Second)
		defer stop()
		_, err := proto.NewMemberClient(c).State(asking, &proto.StateRequest{Job: job, Step: 1})
		if code := status.Code(err); err != nil && ctx.Err() == nil && code != codes.DeadlineExceeded {
			t.Errorf("asking for a state: %v", err)
		}
	}
	<-ctx.Done()
}

// saysHalf opens a ring's stream and sends its first message in small frames, but not to its end. The member gives the
// stream up.
func saysHalf(t *testing.T, as *security.Transport, address string) *http2.Framer {
	t.Helper()
	config := as.HTTPClient(security.Worker)
	config.NextProtos = []string{"h2"}
	c, err := tls.Dial("tcp", address, config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	_ = c.SetReadDeadline(time.Now().Add(deadline))
	framer := http2.NewFramer(c, c)
	var fields bytes.Buffer
	encoder := hpack.NewEncoder(&fields)
	for _, f := range [][2]string{{":method", "POST"}, {":scheme", "https"}, {":path", "/evenweave.Ring/Link"},
		{":authority", "x"}, {"content-type", "application/grpc+evenweave-frame"}, {"te", "trailers"}} {
		_ = encoder.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	_, err = c.Write([]byte(http2.ClientPreface))
	if err == nil {
		err = framer.WriteSettings()
	}
	if err == nil {
		err = framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: fields.Bytes(), EndHeaders: true})
	}
	message := binary.BigEndian.AppendUint32([]byte{0}, 60_000)
	for message = append(message, make([]byte, 50*1025)...); err == nil && len(message) > 0; {
		n := min(1025, len(message))
		err = framer.WriteData(1, false, message[:n])
		message = message[n:]
	}
	if err != nil {
		t.Errorf("sending half a message: %v", err)
	}
	return framer
}
