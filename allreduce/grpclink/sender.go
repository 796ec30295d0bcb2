package grpclink

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"evenweave/allreduce"
)

// Hello opens a stream: it names the ring, the member that sends and the member that receives.
type Hello struct {
	Job        string          `json:"job"`
	Generation int64           `json:"generation"`
	From       string          `json:"from"` // member ids
	To         string          `json:"to"`
	FromRank   int             `json:"from_rank"`
	ToRank     int             `json:"to_rank"`
	World      json.RawMessage `json:"world,omitempty"` // the sender's world record: it may be news to the receiver
}

// Stale is the error of a Dial that the neighbour refused because it is at a newer generation.
type Stale struct{ World []byte } // its world record

// Error returns what the neighbour reported.
func (e *Stale) Error() string { return "the neighbour is at a newer generation, whose world it sent" }

// Connecting: how often a closed port is tried before its process counts as dead, and the pauses between tries.
const (
	refusals = 10
	pause    = 20 * time.Millisecond
)

// Dialer opens streams over a transport. The zero value dials TCP, in plain text.
type Dialer struct {
	// Connect connects to an address; nil: over TCP.
	Connect     func(ctx context.Context, address string) (net.Conn, error)
	Credentials credentials.TransportCredentials // nil: plain text
	// Refused reports whether an error of Connect means that nothing listens at the address. ECONNREFUSED always means
	// that. nil: no other error does.
	Refused func(error) bool
	Options []grpc.CallOption // of the stream
}

// Dial opens the stream to the right neighbour at target and returns when the neighbour has admitted it:
// parked it, or returned it from Accept. ctx bounds the wait, not the stream's life.
//
// Dial tries a closed port a few times within a quarter of a second, because the neighbour may be about to listen. It
// tries a silent or unknown host until ctx ends. Errors are *allreduce.Error: Broken for a closed port, Deadline when
// ctx ended, Protocol for a refusal; a *Stale in its chain brings the newer world.
func (d Dialer) Dial(ctx context.Context, target string, hello Hello) (allreduce.Sender, error) {
	begun := time.Now()
	fail := func(kind allreduce.Kind, err error) (allreduce.Sender, error) {
		return nil, &allreduce.Error{Kind: kind, Err: err, Edge: allreduce.Edge{
			Op: "connect", Rank: hello.FromRank, Peer: hello.ToRank, PeerID: hello.To, Generation: hello.Generation,
			Waited: time.Since(begun)}}
	}
	first, err := json.Marshal(hello)
	if err != nil {
		return fail(allreduce.Protocol, fmt.Errorf("encoding the hello: %w", err))
	}
	dialer := dialer{Dialer: d}
	conn, err := grpc.NewClient("passthrough:///"+target, dialer.options()...)
	if err != nil {
		return fail(allreduce.Broken, err)
	}
	var last error // the last one before ctx ended: it says what Dial waited for
	for try := 1; ; try++ {
		s, err := open(ctx, conn, first, d.Options)
		if err == nil {
			return s, nil
		}
		if ctx.Err() == nil || last == nil {
			last = err
		}
		var stale *Stale
		switch code := status.Code(err); {
		case ctx.Err() != nil:
			_ = conn.Close()
			return fail(allreduce.Deadline, fmt.Errorf("%s: %w (last: %v)", target, context.Cause(ctx), last))
		case errors.As(err, &stale), code != codes.Unavailable:
			_ = conn.Close()
			return fail(allreduce.Protocol, fmt.Errorf("%s refused the stream: %w", target, err))
		case try >= refusals && dialer.refused.Load():
			_ = conn.Close()
			return fail(allreduce.Broken, fmt.Errorf("%s: nothing listens there: %w", target, err))
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// dialer connects, and remembers whether its last connection was refused.
type dialer struct {
	Dialer
	refused atomic.Bool
}

func (d *dialer) dial(ctx context.Context, address string) (conn net.Conn, err error) {
	if d.Connect != nil {
		conn, err = d.Connect(ctx, address)
	} else {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", address)
	}
	d.refused.Store(d.Refused != nil && d.Refused(err) || errors.Is(err, syscall.ECONNREFUSED))
	return conn, err
}

func (d *dialer) options() []grpc.DialOption {
	secured := d.Credentials
	if secured == nil {
		secured = insecure.NewCredentials()
	}
	return append([]grpc.DialOption{
		grpc.WithTransportCredentials(secured),
		grpc.WithContextDialer(d.dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: pause / 2, Multiplier: 1,
			MaxDelay: pause / 2}, MinConnectTimeout: time.Hour}),
		grpc.WithDisableRetry(),
	}, dialOptions()...)
}

// open opens one stream and waits for its admission.
func open(ctx context.Context, conn *grpc.ClientConn, hello []byte, options []grpc.CallOption) (*sender, error) {
	life, cancel := context.WithCancelCause(context.Background())
	release := context.AfterFunc(ctx, func() { cancel(context.Cause(ctx)) })
	desc := &grpc.StreamDesc{StreamName: streamName, ClientStreams: true, ServerStreams: true}
	stream, err := conn.NewStream(life, desc, "/"+serviceName+"/"+streamName,
		append(options, grpc.CallContentSubtype(codecName))...)
	if err != nil {
		cancel(err)
		return nil, err
	}
	s := &sender{conn: conn, stream: stream, cancel: cancel, over: make(chan struct{}), aborted: make(chan struct{})}
	copy(s.Buffer(len(hello)), hello)
	err = stream.SendMsg(&s.next)
	var header metadata.MD
	if err == nil {
		header, err = stream.Header()
	}
	if err == nil && len(header.Get(admittedKey)) > 0 && release() {
		go s.watch()
		return s, nil
	}
	var in incoming
	if status := stream.RecvMsg(&in); status != nil && status != io.EOF {
		err = status
	}
	if err == nil {
		err = errors.New("it ended the stream without a reason")
	}
	if world := stream.Trailer().Get(worldKey); len(world) > 0 {
		err = fmt.Errorf("%w: %w", &Stale{World: []byte(world[0])}, err)
	}
	cancel(err)
	return nil, err
}

// sender is the client's end of a stream.
type sender struct {
	conn   *grpc.ClientConn
	stream grpc.ClientStream
	cancel context.CancelCauseFunc
	pool   pool
	next   outgoing

	over chan struct{} // closed when the stream has ended
	err  error         // why; nil in good order

	once    sync.Once
	cause   error         // why this end aborted, or why the stream ended, whichever came first
	aborted chan struct{} // closed by Abort
	sending sync.Mutex    // held during SendMsg
}

func (s *sender) Buffer(n int) []byte {
	s.next = outgoing{bytes: s.pool.Get(n), pool: &s.pool}
	return *s.next.bytes
}

func (s *sender) Send() error {
	s.sending.Lock()
	defer s.sending.Unlock()
	select {
	case <-s.aborted:
		return s.cause
	default:
	}
	err := s.stream.SendMsg(&s.next)
	if err == nil {
		return nil
	}
	if s.stream.Context().Err() == nil && !errors.Is(err, io.EOF) {
		return err
	}
	<-s.over
	if s.err == nil {
		return errors.New("it closed the ring in good order")
	}
	return s.err
}

// watch waits for the stream's status: the receiver sends nothing else.
func (s *sender) watch() {
	var in incoming
	err := s.stream.RecvMsg(&in)
	switch st := status.Convert(err); {
	case err == io.EOF:
		err = nil
	case err == nil:
		in.pieces.Free()
		err = errors.New("it answered on a stream that only leads to it")
	case st.Code() == codes.Aborted:
		err = &allreduce.PeerAbort{Cause: st.Message()}
	}
	s.once.Do(func() { s.cause = err })
	s.err = s.cause
	s.cancel(err)
	_ = s.conn.Close()
	close(s.over)
}

func (s *sender) Wait() error {
	<-s.over
	return s.err
}

func (s *sender) Abort(cause error) {
	s.once.Do(func() {
		s.cause = cause
		close(s.aborted)
		if s.sending.TryLock() {
			go s.farewell()
		} else { // A Send blocks: no goodbye can be sent.
			s.cancel(cause)
		}
	})
}

// goodbye begins the message with which a sender reports why it gives up. No frame begins with it.
const goodbye = "evenweave goodbye: "

// grace is how long a goodbye may take before the stream is broken without it.
const grace = 20 * time.Millisecond

// farewell sends the receiver the reason why this member gives up; the receiver then ends the stream. s.sending is
// held.
func (s *sender) farewell() {
	defer s.sending.Unlock()
	timer := time.AfterFunc(grace, func() { s.cancel(s.cause) })
	defer timer.Stop()
	text := goodbye + shorten(s.cause.Error())
	message := outgoing{bytes: s.pool.Get(len(text)), pool: &s.pool}
	copy(*message.bytes, text)
	if s.stream.SendMsg(&message) == nil {
		_ = s.stream.CloseSend()
		<-s.over
	}
}

func (s *sender) Close(ctx context.Context) error {
	_ = s.stream.CloseSend()
	select {
	case <-s.over:
		return s.err
	case <-ctx.Done():
		return fmt.Errorf("no acknowledgement: %w", context.Cause(ctx))
	}
}
