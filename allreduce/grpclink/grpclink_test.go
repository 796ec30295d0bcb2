package grpclink_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/allreduce"
	"evenweave/allreduce/allreducetest"
	"evenweave/allreduce/grpclink"
)

// TestMain gives all tests a proxy that does not run, as many clusters have one for outside traffic.
func TestMain(m *testing.M) {
	for _, name := range []string{"HTTP_PROXY", "HTTPS_PROXY"} {
		_ = os.Setenv(name, "http://127.0.0.1:9")
	}
	goleak.VerifyTestMain(m)
}

// TestNoProxy dials an address that is not loopback by its name: without our options gRPC would use the proxy.
func TestNoProxy(t *testing.T) {
	server, address := listen(t, nil)
	server.SetCurrent("job", 1, nil)
	_, port, _ := net.SplitHostPort(address)
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	s, err := overTCP.Dial(ctx, "0.0.0.0:"+port, grpclink.Hello{Job: "job", Generation: 1, From: "a",
		To: "b", ToRank: 1})
	if err != nil {
		t.Fatal(err)
	}
	s.Abort(errors.New("the test is over"))
}

const generous = 3 * time.Minute // only a hang takes so long, however busy the machine is

// listen serves a ring's streams on a loopback port.
func listen(t testing.TB, onWorld func([]byte)) (*grpclink.Server, string) {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpclink.ServerOptions()...)
	links := grpclink.NewServer(nil, onWorld)
	links.Register(server)
	var serving sync.WaitGroup
	serving.Go(func() { server.Serve(socket) })
	t.Cleanup(func() { server.Stop(); serving.Wait() })
	return links, socket.Addr().String()
}

// open returns a world's links over gRPC.
func open(t testing.TB, size int) []allreducetest.Links {
	t.Helper()
	ctx, stop := context.WithTimeout(context.Background(), generous)
	defer stop()
	links := make([]allreducetest.Links, size)
	if size == 1 {
		return links
	}
	servers := make([]*grpclink.Server, size)
	addresses := make([]string, size)
	for i := range size {
		servers[i], addresses[i] = listen(t, nil)
		servers[i].SetCurrent("job", 3, nil)
	}
	errs := allreducetest.Each(size, func(i int) (err error) {
		to := (i + 1) % size
		hello := grpclink.Hello{Job: "job", Generation: 3, From: fmt.Sprint(i), To: fmt.Sprint(to),
			FromRank: i, ToRank: to}
		if links[i].Right, err = overTCP.Dial(ctx, addresses[to], hello); err != nil {
			return err
		}
		links[i].Left, err = servers[i].Accept(ctx, "job", 3, fmt.Sprint((i+size-1)%size))
		return err
	})
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range links {
			l.Right.Abort(errors.New("the test is over"))
			l.Left.Abort(errors.New("the test is over"))
			l.Right.Wait()
			l.Left.Wait()
		}
	})
	return links
}

func TestConformance(t *testing.T) {
	allreducetest.Suite(t, func(t *testing.T, size int) []allreducetest.Links { return open(t, size) })
}

var overTCP grpclink.Dialer

func dial(t *testing.T, address string, hello grpclink.Hello) (allreduce.Sender, error) {
	t.Helper()
	ctx, stop := context.WithTimeout(t.Context(), generous)
	defer stop()
	return overTCP.Dial(ctx, address, hello)
}

var hello = grpclink.Hello{Job: "job", Generation: 3, From: "a", To: "b", FromRank: 0, ToRank: 1,
	World: []byte(`{"generation":3}`)}

func TestOlderGenerationIsRefusedWithTheWorld(t *testing.T) {
	server, address := listen(t, nil)
	server.SetCurrent("job", 4, []byte("world 4"))
	_, err := dial(t, address, hello)
	var stale *grpclink.Stale
	var failed *allreduce.Error
	if !errors.As(err, &stale) || string(stale.World) != "world 4" || !errors.As(err, &failed) ||
		failed.Kind != allreduce.Protocol || failed.PeerID != "b" {
		t.Fatalf("got %v, expected a refusal by b that brings world 4", err)
	}
}

func TestOtherJobIsRefused(t *testing.T) {
	server, address := listen(t, nil)
	server.SetCurrent("other-uuid", 3, nil)
	_, err := dial(t, address, hello)
	if status.Code(errors.Unwrap(err)) != codes.FailedPrecondition {
		t.Fatalf("got %v, expected FailedPrecondition", err)
	}
	if strings.Contains(status.Convert(errors.Unwrap(err)).Message(), "other-uuid") {
		t.Errorf("the refusal %q reveals the job to a stranger", err)
	}
}

func TestNewerGenerationIsParkedUntilAccepted(t *testing.T) {
	worlds := make(chan string, 1)
	server, address := listen(t, func(w []byte) { worlds <- string(w) })
	server.SetCurrent("job", 2, nil)
	sender, err := dial(t, address, hello)
	if err != nil {
		t.Fatal(err)
	}
	if w := <-worlds; w != string(hello.World) {
		t.Errorf("learned of world %q, expected the hello's", w)
	}
	server.SetCurrent("job", 3, nil)
	receiver, err := server.Accept(t.Context(), "job", 3, "a")
	if err != nil {
		t.Fatal(err)
	}
	copy(sender.Buffer(5), "frame")
	if err := sender.Send(); err != nil {
		t.Fatal(err)
	}
	if err := sender.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	pieces, err := receiver.Recv()
	if err != nil || len(pieces) != 1 || string(pieces[0]) != "frame" {
		t.Fatalf("received %q, %v", pieces, err)
	}
	if _, err := receiver.Recv(); err != io.EOF {
		t.Fatalf("got %v after the last frame, expected io.EOF", err)
	}
	receiver.Close(t.Context())
}

func TestParkedStreamIsRefusedWhenItsGenerationIsOver(t *testing.T) {
	server, address := listen(t, nil)
	sender, err := dial(t, address, hello)
	if err != nil {
		t.Fatal(err)
	}
	server.SetCurrent("job", 4, nil)
	var refused *allreduce.PeerAbort
	if err := sender.Wait(); !errors.As(err, &refused) {
		t.Fatalf("got %v, expected that the neighbour says that generation 3 is over", err)
	}
}

// TestTheLargestWorldIsPassedOn, in a hello and in a refusal; no other message is as large.
func TestTheLargestWorldIsPassedOn(t *testing.T) {
	record := `{"generation":4,"peers":"` + strings.Repeat("x", 1<<20-64) + `"}` // MaxWorldBytes of package job
	worlds := make(chan string, 1)
	server, address := listen(t, func(w []byte) { worlds <- string(w) })
	server.SetCurrent("job", 3, nil)
	next := hello
	next.Generation, next.World = 4, []byte(record)
	sender, err := dial(t, address, next)
	if err != nil {
		t.Fatal(err)
	}
	if w := <-worlds; w != record {
		t.Errorf("learned of a world of %d bytes, expected the hello's", len(w))
	}
	server.SetCurrent("job", 4, []byte(record))
	var stale *grpclink.Stale
	if err := refusal(t, address); !errors.As(err, &stale) || string(stale.World) != record {
		t.Errorf("an older generation is refused by %.200v, expected the world of the newer", err)
	}
	receiver, err := server.Accept(t.Context(), "job", 4, "a")
	if err != nil {
		t.Fatal(err)
	}
	sender.Buffer(grpclink.MaxSegmentBytes + 2<<10)
	if err := sender.Send(); err != nil {
		t.Fatal(err)
	}
	if _, err := receiver.Recv(); err == nil || !strings.Contains(err.Error(), "expected at most") {
		t.Errorf("a frame larger than a segment: %v", err)
	}
	sender.Abort(errors.New("the test is over"))
	_ = sender.Wait()
}

// A second caller may be a stranger. A neighbour that dials again is admitted as soon as its first stream is broken.
func TestSecondStreamWaitsUntilTheFirstIsBroken(t *testing.T) {
	server, address := listen(t, nil)
	first, err := dial(t, address, hello)
	if err != nil {
		t.Fatal(err)
	}
	if err := refusal(t, address); err == nil || !strings.Contains(err.Error(), "here already") {
		t.Fatalf("a second stream beside the first: got %v, expected that one is here already", err)
	}
	first.Abort(errors.New("broken"))
	second, err := dial(t, address, hello)
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := server.Accept(t.Context(), "job", 3, "a")
	if err != nil {
		t.Fatal(err)
	}
	if err := refusal(t, address); err == nil || !strings.Contains(err.Error(), "here already") {
		t.Fatalf("a second stream beside one that a ring uses: got %v, expected that one is here already", err)
	}
	receiver.Abort(errors.New("enough"))
	var gaveUp *allreduce.PeerAbort
	if err := second.Wait(); !errors.As(err, &gaveUp) || gaveUp.Cause != "enough" {
		t.Errorf("the sender learned %v, expected the receiver's cause", err)
	}
}

// Both neighbours of a member that gives up learn the cause, though it is only a client to one of them.
func TestBothNeighboursLearnTheCause(t *testing.T) {
	rings := allreducetest.World(t, open(t, 4), 0, 0)
	rings[1].Abort(errors.New("the dog ate it"))
	for rank, r := range rings {
		<-r.Done()
		var e *allreduce.Error
		if err := r.Err(); !errors.As(err, &e) || rank != 1 && e.Kind != allreduce.Relayed ||
			strings.Count(err.Error(), "the dog ate it") != 1 || strings.Count(err.Error(), "gave up") > 1 {
			t.Errorf("rank %d says %v", rank, err)
		}
	}
}

// refusal dials where another stream stands until that is the answer; what does not come about ends by a deadline.
func refusal(t *testing.T, address string) error {
	t.Helper()
	for limit := 200 * time.Millisecond; ; limit *= 2 {
		ctx, stop := context.WithTimeout(t.Context(), limit)
		_, err := overTCP.Dial(ctx, address, hello)
		stop()
		if err == nil || strings.Contains(err.Error(), "here already") || limit > generous {
			return err
		}
	}
}

func TestClosedPortIsBrokenSoon(t *testing.T) {
	_, err := dial(t, "127.0.0.1:1", hello) // no test is given so low a port
	var failed *allreduce.Error
	if !errors.As(err, &failed) || failed.Kind != allreduce.Broken || failed.Waited > generous/3 {
		t.Fatalf("got %v, expected Broken within a moment", err)
	}
}

func TestSilentHostIsADeadline(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0") // accepts connections and stays silent
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	_, err = overTCP.Dial(ctx, socket.Addr().String(), hello)
	var failed *allreduce.Error
	if !errors.As(err, &failed) || failed.Kind != allreduce.Deadline || !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("got %v, expected Deadline", err)
	}
	server, _ := listen(t, nil)
	if _, err = server.Accept(ctx, "job", 3, "a"); !errors.As(err, &failed) || failed.Kind != allreduce.Deadline ||
		failed.PeerID != "a" {
		t.Fatalf("Accept returned %v, expected Deadline for a", err)
	}
}

var many = flag.Int("sums", 300, "random all-reduces of TestManyRandomSums a world")

// Many sums of random lengths in a row, with buffers that are overwritten at once. -sums runs more of them, best on a
// machine whose processors are busy.
func TestManyRandomSums(t *testing.T) {
	for _, size := range []int{4, 8} {
		rings := allreducetest.World(t, open(t, size), 200, 800)
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		errs := allreducetest.Each(size, func(rank int) error {
			lengths := rand.New(rand.NewPCG(1, 0)) // the same on all ranks
			buf := make([]int64, 5000)
			for step := range int64(*many) {
				n := lengths.IntN(3*size + 1)
				if lengths.IntN(20) == 0 {
					n = lengths.IntN(len(buf))
				}
				for i := range n {
					buf[i] = step + int64(i*(rank+1))
				}
				if err := rings[rank].Sum(ctx, step, buf[:n]); err != nil {
					return err
				}
				for i, x := range buf[:n] {
					if want := step*int64(size) + int64(i*size*(size+1)/2); x != want {
						return fmt.Errorf("rank %d step %d: element %d of %d is %d, expected %d",
							rank, step, i, n, x, want)
					}
					buf[i] = -1
				}
			}
			return nil
		})
		stop()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		allreducetest.Close(t, rings)
	}
}
