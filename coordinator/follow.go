package coordinator

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/internal/job"
	"evenweave/internal/policy"
	"evenweave/internal/security"
	"evenweave/internal/state"
	"evenweave/internal/transfer"
	"evenweave/proto"
)

const (
	redial             = 20 * time.Millisecond
	refollow           = 100 * time.Millisecond
	refollowMax        = 2 * time.Second
	acknowledgeTimeout = 5 * time.Second
	mostProbes         = 4 // in a row, while this process is too starved to rate an answer
	quietFor           = 30 * time.Second
	// silentFor ends a stream of statuses: a member sends one every two seconds at least, whatever it does. Keepalive
	// finds a stopped process as late, and not one that answers without sending any.
	silentFor = 15 * time.Second
	// lasting is how long statuses must come for the stream to count: a new one begins with a status in any case.
	lasting = 5 * time.Second
	// fetchPace is what a block of 1 MiB may take on average, beside fetchQuiet: 4 MiB/s. A step sends about as many
	// bytes as its state has, so a network that trains carries more.
	fetchPace = 250 * time.Millisecond
)

// followed is what the streams from the members bring to the term's loop.
type followed struct {
	member, address string
	status          *proto.Status // nil: the stream ended
	invalid         error         // why a status was dropped
	noStatus        error         // why no stream has lasted for long
	taken           func()        // called when the loop has taken it
}

// maxQueuedStatuses of one member wait for the term's loop.
const maxQueuedStatuses = 4

// inbox is what reaches the loop of a term.
type inbox chan any

func (in inbox) send(ctx context.Context, what any) {
	select {
	case in <- what:
	case <-ctx.Done():
	}
}

// dialer speaks to the members of one job.
type dialer struct {
	pool    *proto.Pool
	over    *security.Transport // that the pool dials by
	job     string              // UUID
	layout  *state.Layout
	samples int                          // of the training data
	metrics int                          // of a commit
	keys    func(member string) []string // that the member has registered
	block   []byte                       // of the state that is fetched: one at a time
	pace    time.Duration                // of its blocks
	quiet   time.Duration                // without a lasting stream of a member: then it is said why
}

// options are those of a call that only this member may answer.
func (d *dialer) options(member string) []grpc.CallOption { return d.over.ExpectKeys(d.keys(member)) }

// statusOptions are the options of a call that only this member may answer, by a status.
func (d *dialer) statusOptions(member string) []grpc.CallOption {
	return append(d.options(member), grpc.MaxCallRecvMsgSize(maxStatus))
}

// follower is the stream from one member.
type follower struct {
	address       string
	stop          context.CancelFunc
	acknowledging *atomic.Bool // one at a time
}

// follow passes on a member's status until ctx ends; the caller owns the goroutine.
func (d *dialer) follow(ctx context.Context, j job.Job, member, address string, after int64, in inbox) {
	wait, latest, said := refollow, time.Now(), false
	queue := make(chan struct{}, maxQueuedStatuses)
	for ctx.Err() == nil {
		began, lasted, err := d.stream(ctx, j, member, address, &after, queue, in)
		if ctx.Err() != nil {
			return
		}
		if began {
			in.send(ctx, followed{member: member, address: address})
		}
		switch {
		case lasted >= lasting:
			wait, latest, said = refollow, time.Now(), false
		case !began && status.Code(err) == codes.Unavailable: // no process answers there: probes find that out
		case !said && time.Since(latest) > d.quiet:
			said = true
			in.send(ctx, followed{member: member, address: address, noStatus: err})
		}
		select {
		case <-ctx.Done():
		case <-time.After(wait):
		}
		wait = min(2*wait, refollowMax)
	}
}

// stream passes on statuses until none comes any more. It says whether one has come, and how long they went on coming.
func (d *dialer) stream(ctx context.Context, j job.Job, member, address string, after *int64, queue chan struct{},
	in inbox) (began bool, lasted time.Duration, err error) {
	conn, err := d.pool.Dial(address)
	if err != nil {
		return false, 0, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	watch := proto.NewWatch(ctx, cancel, silentFor, 0)
	stream, err := proto.NewMemberClient(conn).Follow(ctx, &proto.FollowRequest{Job: d.job, AfterStep: *after},
		d.statusOptions(member)...)
	if err != nil {
		return false, 0, err
	}
	var first time.Time
	for {
		watch.Wait(true)
		s, err := stream.Recv()
		watch.Wait(false)
		if cause := context.Cause(ctx); err != nil && cause != nil {
			err = cause
		}
		if err != nil {
			return began, lasted, err
		}
		if !began {
			began, first = true, time.Now()
		}
		lasted = time.Since(first)
		select {
		case queue <- struct{}{}:
		case <-ctx.Done():
			return began, lasted, ctx.Err()
		}
		what := followed{member: member, address: address, status: s, taken: func() { <-queue }}
		if what.invalid = checkStatus(s, j, member, d.metrics); what.invalid == nil && len(s.Commits) > 0 {
			*after = s.Commits[len(s.Commits)-1].Step
		}
		in.send(ctx, what)
	}
}

// probe finds out whether a member's process runs. Silence proves nothing while this process itself is paused: then it
// asks again.
func (d *dialer) probe(ctx context.Context, member, address string) policy.Probed {
	outcome := policy.Silent
	for try := 0; try < mostProbes && outcome == policy.Silent && ctx.Err() == nil; try++ {
		var starved bool
		if outcome, starved = d.probeOnce(ctx, member, address); !starved {
			break
		}
	}
	return policy.Probed{Member: member, Outcome: outcome}
}

// probeOnce asks once: a refused connection says no, a stopped process accepts but never answers. Dialling goes on
// beside the question: a process that is just dying may still accept, and is then refused a moment later.
func (d *dialer) probeOnce(ctx context.Context, member, address string) (outcome policy.Outcome, starved bool) {
	ctx, cancel := context.WithTimeout(ctx, policy.ProbeTimeout)
	defer cancel()
	refused, late := make(chan bool, 1), make(chan bool, 1)
	go func() {
		refused <- awaitRefusal(ctx, d.over, address)
		cancel()
	}()
	go func() { late <- pausedUntil(ctx) }()
	outcome = d.ask(ctx, member, address)
	cancel()
	if <-refused && outcome == policy.Silent {
		outcome = policy.Refused
	}
	return outcome, <-late
}

// pausedUntil waits for the end of ctx and reports whether this process was paused meanwhile.
func pausedUntil(ctx context.Context) (paused bool) {
	tick := time.NewTicker(redial)
	defer tick.Stop()
	for last := time.Now(); ; {
		select {
		case <-ctx.Done():
			return paused || time.Since(last) > policy.CoordinatorPause
		case <-tick.C:
			now := time.Now()
			paused, last = paused || now.Sub(last) > policy.CoordinatorPause, now
		}
	}
}

// ask repeats the probe until it is answered or ctx ends: a connection may break meanwhile.
func (d *dialer) ask(ctx context.Context, member, address string) policy.Outcome {
	for ctx.Err() == nil {
		if conn, err := d.pool.Dial(address); err == nil {
			s, err := proto.NewMemberClient(conn).Probe(ctx, &proto.ProbeRequest{Job: d.job},
				append(d.statusOptions(member), grpc.WaitForReady(true))...)
			switch {
			case err == nil && s.Member == member:
				return policy.Alive
			case err == nil: // another process took the address over
				return policy.Refused
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
	return policy.Silent
}

// awaitRefusal dials until a connection is refused, or ctx ends.
func awaitRefusal(ctx context.Context, over *security.Transport, address string) bool {
	for ctx.Err() == nil {
		conn, err := over.Dial(ctx, address)
		if security.Refused(err) {
			return true
		}
		if err == nil {
			_ = conn.Close()
		}
		select {
		case <-ctx.Done():
		case <-time.After(redial):
		}
	}
	return false
}

// errForged says that a member gave another state than the world agreed on.
var errForged = errors.New("it is not the state that the members agreed on")

// unfetched is an error of the member that a state is fetched from, and not of the disk that it is written to.
type unfetched struct {
	step    int64
	address string
	err     error
}

func (u *unfetched) Error() string {
	return fmt.Sprintf("fetching the state of step %d from %s: %v", u.step, u.address, u.err)
}

func (u *unfetched) Unwrap() error { return u.err }

// fetch begins to fetch a state from a member at an address, until ctx ends: its head, which must have the agreed hash,
// and then block by block, each verified as it arrives. One state is fetched at a time. A member that is too slow makes
// the next try accept half as much, until one brings a state: where all are slow, that is the network.
func (d *dialer) fetch(ctx context.Context, member, address string, step int64, hash string) (state.Stream, error) {
	var sum [sha256.Size]byte
	copy(sum[:], hash)
	if d.block == nil {
		d.block = make([]byte, min(d.layout.Size, state.BlockSize))
	}
	d.pace = max(d.pace, fetchPace)
	s, err := transfer.Download{Layout: d.layout, Samples: d.samples, Step: step, Sum: &sum, Quiet: fetchQuiet,
		Pace: d.pace, Block: d.block,
		Sources: []transfer.Source{transfer.Member(d.pool.Dial, address, d.job, step, false, d.options(member)...)},
		Gone:    func(err error) bool { return status.Code(err) == codes.NotFound },
	}.Stream(ctx)
	explained := func(err error) error {
		if errors.Is(err, proto.ErrSlow) {
			d.pace *= 2
		}
		if errors.Is(err, state.ErrDamaged) {
			err = fmt.Errorf("%w: %w", errForged, err)
		}
		if err != nil {
			err = &unfetched{step, address, err}
		}
		return err
	}
	image := s.Image
	s.Image = func(w io.Writer) error {
		to := &failing{Writer: w}
		err := image(to)
		if err == nil {
			d.pace = fetchPace
		}
		if to.err == nil {
			return explained(err)
		}
		return to.err
	}
	return s, explained(err)
}

// failing remembers the error of a writer, which is not the source's.
type failing struct {
	io.Writer
	err error
}

func (f *failing) Write(p []byte) (n int, err error) {
	n, err = f.Writer.Write(p)
	f.err = err
	return n, err
}

// acknowledge lets a member drop the state of that step and older ones. A member that cannot be reached is asked when
// it reports again.
func (d *dialer) acknowledge(ctx context.Context, member, address string, step int64) error {
	ctx, cancel := context.WithTimeout(ctx, acknowledgeTimeout)
	defer cancel()
	conn, err := d.pool.Dial(address)
	if err != nil {
		return err
	}
	_, err = proto.NewMemberClient(conn).Acknowledge(ctx, &proto.AcknowledgeRequest{Job: d.job, Step: step},
		d.options(member)...)
	return err
}
