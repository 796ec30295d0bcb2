package coordinator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/checkpoint"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/internal/state"
	"evenweave/proto"
)

const (
	fetchQuiet = 10 * time.Second // without a block
	saveRetry  = 3 * time.Second
	sayAgain   = 10 * time.Minute // that saving fails, for the same reason
	saveStalls = 30 * time.Second // without a block written: it is said
	// how long a new term waits for reports of older due states, and any term for reports of earlier steps
	reportWait = 5 * time.Second
)

// saver makes due states durable, one at a time, in a goroutine of its own; the ring is not involved. All but that
// goroutine, and when it last came on, belongs to the term's loop.
type saver struct {
	members *roster
	steps   *summary
	source  source
	sink    sink
	journal syncer
	inputs  inbox
	tasks   *sync.WaitGroup // of the term
	log     *slog.Logger

	term    int64 // its number
	began   time.Time
	durable checkpoint.Entry
	gone    time.Time // since when a halt finds no member of the world; zero: it does, or there is none
	busy    bool
	saving  int64                // the step, while busy
	moved   atomic.Int64         // when that save last came on, in nanoseconds since 1970
	stalls  int                  // how often it was said that it does not: once, and once more under a halt
	after   time.Time            // after a failure: not before this
	said    map[string]time.Time // why saves have failed since the last one that did not, and when it was said
	// members that failed to give a state, or gave another one: until when others are asked first
	avoid   map[string]time.Time
	forged  map[string]bool // those that gave another one: they are not asked again
	doubted map[int64]bool  // due steps that are passed over; each is named once
}

// source gives the states that members hold.
type source interface {
	fetch(ctx context.Context, member, address string, step int64, hash string) (state.Stream, error)
	acknowledge(ctx context.Context, member, address string, step int64) error
}

// sink is the archive as the saver uses it.
type sink interface {
	write(ctx context.Context, j job.Job, term int64, s state.Stream) (checkpoint.Entry, error)
	prune(ctx context.Context, term int64)
}

// syncer is the journal as the saver uses it.
type syncer interface {
	emitter
	sync()
}

// saved is what fetching and writing one state came to.
type saved struct {
	step    int64
	member  string
	entry   checkpoint.Entry
	seconds float64
	bytes   int64
	err     error
}

// save starts to make the next state durable, if there is one.
func (s *saver) save(ctx context.Context) {
	member, step, hash, ok := s.next(time.Now())
	if !ok {
		return
	}
	s.busy, s.saving, s.stalls = true, step, 0
	s.moves()
	j, address := *s.members.job(), s.members.followers[member].address
	s.tasks.Go(func() {
		r := s.fetchAndWrite(ctx, j, member, address, step, hash)
		r.member = member
		s.inputs.send(ctx, r)
		if r.err == nil || full(r.err) { // here, since the term's loop waits for no disk
			s.sink.prune(ctx, s.term)
		}
	})
}

// full says whether an error is that of a disk without room, or of a quota.
func full(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

// tidy removes what earlier terms have left beyond the checkpoints that are kept: more may be kept by them, and a full
// disk lets no save succeed, which would do it.
func (s *saver) tidy(ctx context.Context) { s.tasks.Go(func() { s.sink.prune(ctx, s.term) }) }

// rescue starts to save what members hold although none of the world is left. It says whether to wait for that, or for
// a holder: no longer than for any report.
func (s *saver) rescue(ctx context.Context) (wait bool) {
	if s.busy {
		return true
	}
	now := time.Now()
	if s.gone.IsZero() {
		s.gone = now
	}
	s.save(ctx)
	return s.busy || now.Sub(s.gone) < reportWait && (len(s.claims()) > 0 || s.early(now))
}

func (s *saver) fetchAndWrite(ctx context.Context, j job.Job, member, address string, step int64,
	hash string) saved {
	began := time.Now()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := s.source.fetch(ctx, member, address, step, hash)
	if err != nil {
		return saved{step: step, err: err}
	}
	s.moves()
	s.journal.sync()
	s.moves()
	image := stream.Image
	stream.Image = func(w io.Writer) error { return image(moving{w, s.moves}) }
	entry, err := s.sink.write(ctx, j, s.term, stream)
	if err != nil {
		return saved{step: step, err: err}
	}
	return saved{step: step, entry: entry, seconds: time.Since(began).Seconds(),
		bytes: int64(len(stream.Bytes)) + stream.Layout.Size}
}

// moves notes that the save under way has come on.
func (s *saver) moves() { s.moved.Store(time.Now().UnixNano()) }

// moving calls moves after each write.
type moving struct {
	io.Writer
	moves func()
}

func (m moving) Write(b []byte) (int, error) {
	defer m.moves()
	return m.Writer.Write(b)
}

// watch says that a save does not come on. It is not given up: what a disk that hangs does later is not known.
func (s *saver) watch(now time.Time, halting bool) {
	most := 1
	if halting {
		most = 2
	}
	quiet := now.Sub(time.Unix(0, s.moved.Load()))
	if !s.busy || quiet < saveStalls || s.stalls >= most {
		return
	}
	s.stalls = most
	dir := filepath.Dir(s.durable.Path)
	s.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: saving step %d in %s has not come on for %v: "+
		"the disk does not answer. Nothing else is saved meanwhile, and a stop of the job waits for it: mend it, or "+
		"end this coordinator; the next one saves what members still hold", s.saving, dir, quiet.Round(time.Second))})
}

// took takes the result, reports it and lets all members drop what is durable. After a failure it may ask another
// member at once.
func (s *saver) took(ctx context.Context, in saved) (durable bool) {
	s.busy = false
	if in.err != nil {
		s.failed(ctx, in)
		return false
	}
	if lost := s.lostEpochs(in.step); lost > 0 {
		s.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: step %d is saved; before it %d epochs ended "+
			"whose states are gone: they will not be evaluated. Saving is slower than epochs are, or no coordinator "+
			"ran", in.step, lost)})
	}
	s.durable = in.entry
	clear(s.said)
	s.members.proofs.saved(in.step)
	m := in.entry.Manifest
	s.journal.emit(progress.Checkpoint{Step: int(m.Step), Epoch: int(m.Epoch), Path: in.entry.Path,
		Seconds: in.seconds, Bytes: in.bytes})
	for member := range s.members.statuses {
		s.acknowledge(ctx, member)
	}
	return true
}

func (s *saver) failed(ctx context.Context, in saved) {
	if status.Code(in.err) == codes.NotFound { // the member has just dropped it for newer ones
		s.log.Debug("gone before it could be saved", "err", in.err)
		if of := s.members.statuses[in.member]; of != nil {
			of.Due = slices.DeleteFunc(of.Due, func(h *proto.HeldState) bool { return h.Step == in.step })
		}
		if member, step, _, ok := s.next(time.Now()); ok && member == in.member && step == in.step { // it says so still
			s.avoid[in.member] = time.Now()
			s.again(ctx)
			return
		}
		s.save(ctx)
		return
	}
	s.avoid[in.member] = time.Now()
	if errors.Is(in.err, errForged) {
		s.forged[in.member] = true
		s.journal.emit(progress.Warning{Message: fmt.Sprintf("checkpoint: %s: %v; %s is not asked again",
			in.member, in.err, in.member)})
		s.save(ctx) // another has it
		return
	}
	s.say(in.err)
	if errors.As(in.err, new(*unfetched)) {
		s.again(ctx)
		return
	}
	s.after = time.Now().Add(saveRetry) // members keep it, and every later status asks again
}

// say warns of a save that failed, of the same reason once in a while: it is tried again every few seconds.
func (s *saver) say(err error) {
	now, why := time.Now(), err.Error()
	if cause, ok := errors.AsType[syscall.Errno](err); ok { // whatever the step
		why = cause.Error()
	}
	if at, ok := s.said[why]; ok && now.Sub(at) < sayAgain {
		s.log.Debug("no checkpoint yet", "err", err)
		return
	}
	if len(s.said) >= maxFollowers {
		clear(s.said)
	}
	s.said[why] = now
	s.log.Warn("no checkpoint yet", "err", err)
	s.journal.emit(progress.Warning{Message: "checkpoint: " + strings.TrimPrefix(err.Error(), "checkpoint: ") +
		"; it will be tried again"})
}

// again asks a member that has not failed for a while, at once: a halt does not wait for long. If there is none, the
// next try comes after a pause.
func (s *saver) again(ctx context.Context) {
	now := time.Now()
	if member, _, _, ok := s.next(now); ok && now.Sub(s.avoid[member]) >= saveRetry {
		s.save(ctx)
		return
	}
	s.after = now.Add(saveRetry)
}

// forget drops what is known of a process that is followed no more.
func (s *saver) forget(member string) {
	delete(s.forged, member)
	delete(s.avoid, member)
}

// holdsOld says whether a member holds a state that is durable already: it did not report when that was saved.
func (s *saver) holdsOld(of *proto.Status) bool {
	return slices.ContainsFunc(of.Due, func(h *proto.HeldState) bool { return h.Step <= s.durable.Manifest.Step })
}

// acknowledge lets a member drop the durable state and older ones.
func (s *saver) acknowledge(ctx context.Context, member string) {
	f, step := s.members.followers[member], s.durable.Manifest.Step
	if f.acknowledging == nil || !f.acknowledging.CompareAndSwap(false, true) { // its next status asks again
		return
	}
	s.tasks.Go(func() {
		defer f.acknowledging.Store(false)
		if err := s.source.acknowledge(ctx, member, f.address, step); err != nil {
			s.log.Debug("acknowledging", "member", member, "err", err)
		}
	})
}
