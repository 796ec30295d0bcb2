package serving_test

import (
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"evenweave/allreduce/grpclink"
	"evenweave/internal/serving"
)

// limits are what a gRPC listener allows a caller.
type limits struct{ streams, headers, stream, connection uint32 }

const hang = 3 * time.Minute // only a hang takes so long

// listener is a gRPC server whose one method takes a string.
func listener(t *testing.T, transport ...grpc.ServerOption) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := serving.NewServer(slog.New(slog.DiscardHandler), func() {}, transport...)
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, ctx context.Context,
			decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			return new(wrapperspb.StringValue), decode(in)
		}}}}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(serving.Limited(l, 2)) }()
	t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

// announced are the limits that a listener announces to each caller, and enforces.
func announced(t *testing.T, address string) limits {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(hang))
	if _, err := c.Write([]byte(http2.ClientPreface)); err != nil {
		t.Fatal(err)
	}
	framer := http2.NewFramer(c, c)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	got := limits{stream: 65535, connection: 65535} // HTTP/2's own
	for acknowledged := false; !acknowledged; {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			acknowledged = f.IsAck()
			_ = f.ForeachSetting(func(s http2.Setting) error {
				switch s.ID {
				case http2.SettingMaxConcurrentStreams:
					got.streams = s.Val
				case http2.SettingMaxHeaderListSize:
					got.headers = s.Val
				case http2.SettingInitialWindowSize:
					got.stream = s.Val
				}
				return nil
			})
		case *http2.WindowUpdateFrame:
			got.connection += f.Increment
		}
	}
	return got
}

// TestLimitsOfEveryListener: what one caller may send and hold at a coordinator and at a worker, whose listener also
// carries the ring. Pages have theirs in TestPagesHaveLimits, times theirs in TestConnectionsAreBounded.
func TestLimitsOfEveryListener(t *testing.T) {
	for name, c := range map[string]struct {
		transport []grpc.ServerOption
		want      limits
		message   int
	}{
		"coordinator": {nil, limits{32, 16 << 10, 64 << 10, 64 << 10}, 64 << 10},
		"worker":      {grpclink.ServerOptions(), limits{32, 16 << 10, 2 << 20, 2 << 20}, 1089 << 10},
	} {
		t.Run(name, func(t *testing.T) {
			address := listener(t, c.transport...)
			if got := announced(t, address); got != c.want {
				t.Errorf("a caller may send %+v, expected %+v", got, c.want)
			}
			conn, err := grpc.NewClient("passthrough:///"+address,
				grpc.WithTransportCredentials(insecure.NewCredentials()))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			ctx, stop := context.WithTimeout(t.Context(), hang)
			defer stop()
			for size, want := range map[int]codes.Code{c.message - 8: codes.OK, c.message: codes.ResourceExhausted} {
				err := conn.Invoke(ctx, "/Test/Call", wrapperspb.String(strings.Repeat("x", size)),
					new(wrapperspb.StringValue))
				if status.Code(err) != want {
					t.Errorf("a message of %d bytes: %v, want %v", size, err, want)
				}
			}
		})
	}
}
