package worker

import (
	"encoding/json"
	"math"
	"net"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"evenweave/allreduce/grpclink"
	"evenweave/internal/job"
	"evenweave/internal/security"
)

func worldOf(generation int64, ids ...string) job.World {
	w := job.World{Job: "uuid", Generation: generation, Since: generation}
	for _, id := range ids {
		w.Peers = append(w.Peers, job.Peer{ID: id, Address: "127.0.0.1:9"})
	}
	return w
}

// plainWorld opens a world that has no seal.
func plainWorld(record []byte) (w job.World, err error) {
	if err = json.Unmarshal(record, &w); err == nil {
		err = w.Validate()
	}
	return w, err
}

// A member that cannot reach etcd learns of the newer world from the neighbour that refuses it.
func TestARefusalBringsTheNewerWorld(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	older, newer := worldOf(3, "me", "b"), worldOf(4, "b", "me")
	older.Peers[1].Address = listener.Addr().String()
	older.Record, _ = json.Marshal(older)
	record, _ := json.Marshal(newer)
	b := NewRings("b", "uuid", security.For(nil), plainWorld, func(job.World) {})
	b.server.SetCurrent("uuid", 4, record)
	server := grpc.NewServer(grpclink.ServerOptions()...)
	b.server.Register(server)
	served := make(chan error)
	go func() { served <- server.Serve(listener) }()
	defer func() {
		server.Stop()
		<-served
	}()

	var learned []job.World
	me := NewRings("me", "uuid", security.For(nil), plainWorld, func(w job.World) { learned = append(learned, w) })
	if _, err := me.Connect(t.Context(), older, 0); err == nil {
		t.Fatal("an older generation was connected")
	}
	if len(learned) != 1 || learned[0].Generation != 4 || learned[0].Rank("me") != 1 {
		t.Errorf("learned %+v, expected the world of generation 4", learned)
	}
}

// A Hello counts only if it comes from the left neighbour in a valid world of its generation and names this member.
func TestHellosAreCheckedBeforeUse(t *testing.T) {
	known := worldOf(3, "a", "me", "c")
	good := func() (grpclink.Hello, job.World) {
		return grpclink.Hello{Job: "uuid", Generation: 4, From: "c", To: "me", FromRank: 1, ToRank: 2},
			worldOf(4, "a", "c", "me")
	}
	for name, c := range map[string]struct {
		change func(h *grpclink.Hello, w *job.World)
		want   string // "": admitted
	}{
		"a newer world":            {func(*grpclink.Hello, *job.World) {}, ""},
		"another job":              {func(h *grpclink.Hello, w *job.World) { h.Job, w.Job = "x", "x" }, "another job"},
		"the world of another job": {func(_ *grpclink.Hello, w *job.World) { w.Job = "x" }, "another job"},
		"of another generation": {func(_ *grpclink.Hello, w *job.World) { w.Generation = 5 },
			"another job or generation"},
		"no peers": {func(_ *grpclink.Hello, w *job.World) { w.Peers = nil }, "left neighbour"},
		"generation 2^62": {func(h *grpclink.Hello, w *job.World) {
			h.Generation, w.Generation = 1<<62,
				1<<62
		}, "generation"},
		"generation MaxInt64": {func(h *grpclink.Hello, w *job.World) {
			h.Generation, w.Generation = math.MaxInt64,
				math.MaxInt64
		}, "generation"},
		"negative backoff":   {func(_ *grpclink.Hello, w *job.World) { w.Backoff = -1 }, "patience"},
		"a peer twice":       {func(_ *grpclink.Hello, w *job.World) { w.Peers[0].ID = "c" }, "twice"},
		"since after itself": {func(_ *grpclink.Hello, w *job.World) { w.Since = 9 }, "since"},
		"a wrong rank":       {func(h *grpclink.Hello, _ *job.World) { h.FromRank = 0 }, "left neighbour"},
		"not the left neighbour": {func(h *grpclink.Hello, _ *job.World) { h.From, h.FromRank = "a", 0 },
			"left neighbour"},
		"a stranger":        {func(h *grpclink.Hello, _ *job.World) { h.From = "evil" }, "left neighbour"},
		"another addressee": {func(h *grpclink.Hello, _ *job.World) { h.To = "a" }, "advertise"},
		"itself": {func(h *grpclink.Hello, _ *job.World) { h.From, h.To = "me", "a" },
			"dialled itself"},
		"a forged world of the generation that is known": {func(h *grpclink.Hello, w *job.World) {
			h.Generation,
				w.Generation, w.Since = 3, 3, 3
		}, "left neighbour"},
	} {
		t.Run(name, func(t *testing.T) {
			r := NewRings("me", "uuid", security.For(nil), plainWorld, func(job.World) {})
			r.world.Store(&known)
			h, w := good()
			c.change(&h, &w)
			h.World, _ = json.Marshal(w)
			err := r.check(t.Context(), h)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, expected %q", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), "uuid") {
				t.Errorf("the refusal %q reveals the job", err)
			}
		})
	}
}
