package worker

import (
	"context"
	"encoding/binary"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"evenweave/internal/example"
	"evenweave/internal/job"
	"evenweave/internal/state"
	"evenweave/proto"
)

// TestACopyLeavesOthersTheirSteps: a reader that needs a copy of a newer state takes no step from one that has all up
// to there. The copy stands while the steps since are kept.
func TestACopyLeavesOthersTheirSteps(t *testing.T) {
	l := newUpdateLog(0)
	commit := func(step int64) { l.commits(&update{step: step, words: make([]int64, 1)}, state.Fingerprint{}) }
	l.most = 3 * 8 // three steps
	l.wanted = true
	commit(1)
	if c := l.begin(1, state.Fingerprint{}); c == nil {
		t.Fatal("no copy is made for the first reader")
	}
	for step := int64(2); step <= 5; step++ {
		commit(step)
	}
	if l.copied != nil {
		t.Fatal("the copy stands, and a step since is not kept")
	}
	l.wanted = true // by a second reader, while the first has read all steps up to 5
	commit(6)
	second := l.begin(6, state.Fingerprint{})
	if u, err := (&logReader{updateLog: l}).next(t.Context(), 6, false); err != nil || u.step != 6 {
		t.Errorf("the first reader gets %v, %v instead of step 6", u, err)
	}
	for step := int64(7); step <= 9; step++ {
		if commit(step); l.copied != second {
			t.Fatalf("the copy of step 6 is dropped at step %d, and all steps since are kept", step)
		}
	}
	if commit(10); l.copied != nil {
		t.Error("the copy of step 6 stands, and step 7 is not kept")
	}
}

// TestBuffersAreUsedAgain: what all spares have been sent is memory for the steps to come, and no spare gets a word of
// a later step for it, however slow it is and whenever it came.
func TestBuffersAreUsedAgain(t *testing.T) {
	const size, last = 1 << 16, 40 // words: each step is sent in parts
	again := 0
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(seed, 1))
			rest := func(r *rand.Rand, most int) { // in virtual time
				time.Sleep(time.Duration(r.IntN(most)) * time.Millisecond)
			}
			l := newUpdateLog(0)
			l.hasState, l.most, l.room.words = 1+r.Int64N(2*8*size), 10*8*size, size
			ctx, end := context.WithCancel(t.Context())
			var spares sync.WaitGroup
			for i := range 1 + r.IntN(maxReaders) {
				spares.Go(func() {
					r := rand.New(rand.NewPCG(seed, uint64(2+i)))
					rest(r, 300)
					step, pace := int64(0), 1+r.IntN(40)
					_ = l.send(ctx, func(u *proto.Update) error {
						if step = max(step, u.Step); len(u.Words) == 0 {
							return nil
						}
						for rest(r, pace); len(u.Words) > 0; u.Words = u.Words[8:] {
							if got := int64(binary.LittleEndian.Uint64(u.Words)); got != step {
								t.Errorf("seed %d: a word of step %d is sent for one of step %d", seed, got, step)
								return errKilled
							}
						}
						return nil
					})
				})
			}
			known, words := map[*int64]bool{}, make([]int64, size)
			for step := int64(1); step <= last; step++ {
				rest(r, 30)
				for i := range words {
					words[i] = step
				}
				u := &update{step: step}
				if l.isOpen() {
					known[&words[0]], u.words = true, words
					if words = l.takeBuffer(); words == nil {
						words = make([]int64, size)
					} else if known[&words[0]] {
						again++
					}
				}
				l.sums(u)
				rest(r, 30)
				l.commits(u, state.Fingerprint{Hi: step})
				if c := l.begin(step, state.Fingerprint{Hi: step}); c != nil {
					close(c.taken)
				}
			}
			end()
			spares.Wait()
			l.end()
			l.keepsNothing(t)
		})
	}
	if again == 0 {
		t.Error("no memory was used again")
	}
}

// unread is an Updates stream whose reader reads the announcement of a state and then no more.
type unread struct {
	grpc.ServerStream
	ctx       context.Context
	announced chan struct{}
}

func (u *unread) Context() context.Context { return u.ctx }

func (u *unread) Send(m *proto.Update) error {
	if m.High != 0 && u.announced != nil {
		close(u.announced)
		u.announced = nil
		return nil
	}
	if m.High == 0 {
		return nil
	}
	<-u.ctx.Done()
	return u.ctx.Err()
}

// TestASpareThatFetchesReadsNoSteps, however long the fetch takes: it is given up only when it takes no block either.
func TestASpareThatFetchesReadsNoSteps(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := served(t, example.NewSoftmax())
		log := s.replica.updates
		ctx, end := context.WithCancel(t.Context()) // of the streams, which gRPC ends with their handlers
		defer end()
		ended, announced := make(chan error, 1), make(chan struct{})
		go func() { ended <- s.Updates(&proto.UpdatesRequest{Job: s.job}, &unread{ctx: ctx, announced: announced}) }()
		synctest.Wait()
		c := log.begin(20, state.Fingerprint{Hi: 1})
		c.state, c.err = s.replica.at(ctx, 15)
		close(c.taken)
		log.commits(&update{step: 20, skipped: true}, c.fingerprint) // wakes the reader
		<-announced
		log.commits(&update{step: 21, skipped: true}, c.fingerprint)
		take := make(chan struct{}, 1<<10)
		for range 10 {
			time.Sleep(stateQuiet - time.Second)
			take <- struct{}{}
			go func() {
				r := &proto.StateRequest{Job: s.job, Step: 20, Length: 1, Quick: true}
				_ = s.State(r, &blocks{ctx: ctx, take: take})
			}()
			synctest.Wait()
			if len(ended) > 0 {
				t.Fatalf("it is given up while it fetches: %v", <-ended)
			}
		}
		last := time.Now()
		if err := <-ended; status.Code(err) != codes.DeadlineExceeded || time.Since(last) != stateQuiet {
			t.Errorf("it ends after %v with %v", time.Since(last), err)
		}
		end()
		synctest.Wait()
	})
}

// largeStep sends the head of a step of the largest batch.
type largeStep struct {
	proto.UnimplementedMemberServer
}

func (largeStep) Updates(_ *proto.UpdatesRequest, stream grpc.ServerStreamingServer[proto.Update]) error {
	u := &proto.Update{Samples: make([]uint32, job.MaxGlobalBatch)}
	for i := range u.Samples {
		u.Samples[i] = 1<<31 - 1
	}
	return stream.Send(u)
}

// TestTheLargestBatchIsReceived: the head of its step names each sample.
func TestTheLargestBatchIsReceived(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	proto.RegisterMemberServer(server, largeStep{})
	serving := make(chan struct{})
	go func() { defer close(serving); _ = server.Serve(l) }()
	defer func() { server.Stop(); <-serving }()
	pool := &proto.Pool{Options: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}}
	defer pool.Close()
	f := Fetcher{Dial: pool.Dial, ExpectKeys: func([]string) []grpc.CallOption { return nil }}
	next, err := f.Updates(t.Context(), l.Addr().String(), nil, "job")
	if err != nil {
		t.Fatal(err)
	}
	if u, err := next(); err != nil || len(u.Samples) != job.MaxGlobalBatch {
		t.Errorf("%d samples, %v", len(u.GetSamples()), err)
	}
}

// TestASparesCopyServesOthers: a spare takes quick hashes. A reader that does not ask for them gets the SHA-256 that
// the members agree on, of the same copy.
func TestASparesCopyServesOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.publish(false, "a")
		a.until(3)
		c.start("s", 1, nil)
		log := a.replica.updates
		var copied *stateCopy
		for copied == nil {
			time.Sleep(time.Millisecond / 4) // virtual
			log.mu.Lock()
			copied = log.copied
			log.mu.Unlock()
		}
		<-copied.taken
		quick, _, err := a.replica.lend(copied.step, true, soon)
		if want := state.SealQuickly(copied.state.State).SHA256; err != nil || quick.SHA256 != want {
			t.Errorf("quick: %x, %v, want %x", quick.SHA256, err, want)
		}
		whole, err := a.replica.at(t.Context(), copied.step)
		if want := state.Seal(copied.state.State).SHA256; err != nil || whole.SHA256 != want ||
			whole.State != quick.State {
			t.Errorf("whole: %x, %v, want %x", whole.SHA256, err, want)
		}
		c.kill()
	})
}

// TestReadinessIsSteady: a step that has just been taken elsewhere is on its way, so it makes no spare unready, and the
// time that it may stay unused runs from the first time on.
func TestReadinessIsSteady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &catchUp{}
		l := Loop{replica: served(t, example.NewSoftmax()).replica, lanes: []*lane{{}}, catching: c,
			Log: slog.New(slog.DiscardHandler)}
		began := time.Now()
		for i, behind := range []int64{2, 1, 0, 1, 2, 1, 0, 1, 9, 0} {
			l.takeNext(arrival{newest: l.replica.step + behind, asked: true}, true)
			if want := i == 2 || i == 3 || i == 6 || i == 7 || i == 9; c.ready != want {
				t.Errorf("%d: %d steps behind: ready is %v", i, behind, c.ready)
			}
			if i >= 2 && c.since.Sub(began) != 2*time.Second {
				t.Errorf("%d: it is ready since %v", i, c.since.Sub(began))
			}
			time.Sleep(time.Second) // virtual
		}
	})
}

// TestAStepThatArrivesSlowly: while the words of a step arrive the others take more steps, of which its head, sent
// before the words, says nothing. The spare is not ready then: the others would wait for it.
func TestAStepThatArrivesSlowly(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp = true
		a := c.start("a", 1, nil)
		c.start("b", 1, nil)
		c.publish(false, "a", "b")
		a.until(3)
		newest, slowed := false, 0
		c.onUpdate = func(_ *hand, u *proto.Update) error {
			switch led := u.High != 0 || u.Low != 0; {
			case u.Step > 0 && !led:
				newest = u.Newest <= u.Step
			case len(u.Words) > 0 && newest && slowed == 0:
				slowed++
				step, _, _ := a.replica.progress()
				a.until(step + 3)
			case slowed == 1: // so that a spare which is ready too early is seen
				slowed++
				time.Sleep(3 * time.Millisecond) // virtual
			}
			return nil
		}
		s := c.start("s", 1, nil)
		s.ready()
		if s.keepsUpWith(t, a); slowed < 2 {
			t.Error("no step has arrived slowly")
		}
		c.publish(true, "a", "b", "s")
		if got := c.finish("a", "b", "s"); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	})
}

// TestAnOldSignMakesNoSpareReady: what the other member said while the spare fetched the state, for many steps, is old
// when the spare reads it.
func TestAnOldSignMakesNoSpareReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.catchUp, c.window = true, 64
		c.job.Spec.Epochs, c.job.Spec.Steps = 1000, 20000
		c.view.Job = &c.job
		a := c.start("a", 1, slowly)
		c.publish(false, "a")
		a.until(1)
		c.slow(time.Minute)
		s := c.start("s", 1, nil)
		s.ready()
		if s.keepsUpWith(t, a); c.fetches != 1 {
			t.Errorf("%d states were fetched, want 1", c.fetches)
		}
		c.kill()
	})
}

// TestASpareThatMayNotAskJoins: an older member refuses the question. What it says by itself must do then.
func TestASpareThatMayNotAskJoins(t *testing.T) {
	want := calm(t, steps)
	synctest.Test(t, func(t *testing.T) {
		c := newCrew(t, steps)
		c.refuses = status.Error(codes.PermissionDenied, "role worker may not call")
		if got := c.joins(func(*hand, []string) {}); got != want {
			t.Errorf("%s, want %s", got, want)
		}
		if c.fetches != 1 {
			t.Errorf("%d states were fetched, want 1", c.fetches)
		}
	})
}
