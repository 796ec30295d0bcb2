package coordinator

import (
	"errors"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"evenweave"
	"evenweave/internal/state"
	"evenweave/proto"
)

// serves is a member that gives one state, whatever is asked for, with some bytes of it changed.
type serves struct {
	proto.UnimplementedMemberServer
	state  *state.State
	change func(p []byte) []byte
}

func (s serves) State(r *proto.StateRequest, stream grpc.ServerStreamingServer[proto.Block]) error {
	var encoded strings.Builder
	if _, err := state.Seal(s.state).WriteTo(&encoded); err != nil {
		return err
	}
	part := s.change([]byte(encoded.String()))[r.Offset:]
	if r.Length > 0 {
		part = part[:min(r.Length, int64(len(part)))]
	}
	return stream.Send(&proto.Block{Data: part})
}

// flat is the layout of a model of some values.
func flat(t *testing.T, values int) *state.Layout {
	t.Helper()
	l, err := state.NewLayout([]evenweave.Tensor{{Name: "w", Type: evenweave.Float32, Shape: []int{values},
		Role: evenweave.Trained}})
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestFetchedBytesAreCompared: what a member serves is the state that the world agreed on, byte by byte, or it is
// forged.
func TestFetchedBytesAreCompared(t *testing.T) {
	one, _ := leading(t)
	d := one.dialer
	agreed := state.New(d.layout, d.samples)
	agreed.Step, agreed.Image[7] = 10, 1
	sum := state.Seal(agreed).SHA256
	zeros := state.New(d.layout, d.samples)
	zeros.Step = 10
	as := func(p []byte) []byte { return p }
	for what, c := range map[string]struct {
		serves
		forged bool
	}{
		"the agreed one": {serves{state: agreed, change: as}, false},
		"zeros":          {serves{state: zeros, change: as}, true},
		"a changed bit":  {serves{state: agreed, change: func(p []byte) []byte { p[len(p)-20] ^= 1; return p }}, true},
		"a changed head": {serves{state: agreed, change: func(p []byte) []byte { p[0] ^= 1; return p }}, true},
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		server, serving := grpc.NewServer(), make(chan struct{})
		proto.RegisterMemberServer(server, c.serves)
		go func() { defer close(serving); _ = server.Serve(l) }()
		s, err := d.fetch(t.Context(), "a", l.Addr().String(), 10, string(sum[:]))
		digest := state.NewDigest(d.layout)
		if err == nil {
			err = s.Image(digest)
		}
		found := state.Fingerprint{}
		if err == nil {
			found, err = digest.Fingerprint(s.Head)
		}
		if errors.Is(err, errForged) != c.forged || (err == nil) == c.forged || err == nil &&
			found != agreed.Fingerprint() {
			t.Errorf("%s: %v", what, err)
		}
		server.Stop()
		<-serving
	}
	d.pool.Close()
}
