package worker

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"time"

	"evenweave/internal/state"
	"evenweave/proto"
)

// slow lets fetches that begin from now on take so long.
func (c *crew) slow(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.large = d
}

// Fetch implements fetcher.
func (c *crew) Fetch(ctx context.Context, w Wanted) (*state.State, error) {
	c.mu.Lock()
	large, trickles := c.large, c.trickles
	c.mu.Unlock()
	for sent := 1; w.Image != nil && w.Peers[0] == trickles; sent++ {
		select {
		case <-time.After(w.Quiet - time.Second):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if sent > 10 {
			c.t.Errorf("%s is waited for without end", trickles)
		}
		if w.Arrived(sent); w.Pace > 0 || sent > 10 {
			return nil, proto.ErrSlow
		}
	}
	for left := large; len(w.Peers) > 0 && left > 0 && ctx.Err() == nil; left -= time.Second {
		time.Sleep(time.Second) // virtual
		w.Arrived(int((large - left) / time.Second))
	}
	for {
		s, err := c.fetch(ctx, w)
		if err == nil {
			s = s.Clone()
			if w.Image != nil {
				s.Image = w.Image[:copy(w.Image, s.Image)]
			}
			return s, nil
		}
		select {
		case <-time.After(fetchPoll):
		case <-ctx.Done():
			return nil, err
		}
		if w.Quiet -= fetchPoll; w.Quiet <= 0 {
			return nil, err
		}
	}
}

// Updates implements fetcher.
func (c *crew) Updates(ctx context.Context, address string, _ []string,
	_ string) (func() (*proto.Update, error), error) {
	from := c.member(address)
	sent, ended := make(chan *proto.Update, c.window), make(chan error, 1)
	c.running.Go(func() {
		ended <- from.replica.updates.send(ctx, func(u *proto.Update) error {
			if c.onUpdate != nil {
				if err := c.onUpdate(from, u); err != nil {
					return err
				}
			}
			u.Words = bytes.Clone(u.Words) // the sender uses their memory again
			for {
				part := u
				if v, _ := c.View(); c.sips > 0 && v.World.Generation > 1 && len(u.Words) > 8 {
					time.Sleep(c.sips) // virtual
					part, u = &proto.Update{Words: u.Words[:8]}, &proto.Update{Words: u.Words[8:]}
				}
				select {
				case sent <- part:
					if part == u {
						return nil
					}
				case <-ctx.Done():
					return context.Cause(ctx)
				case <-from.ended:
					return errKilled
				}
			}
		})
	})
	return func() (*proto.Update, error) {
		select {
		case u := <-sent:
			return u, nil
		case err := <-ended:
			return nil, err
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-from.ended:
			return nil, errKilled
		}
	}, nil
}

// Newest implements fetcher.
func (c *crew) Newest(_ context.Context, address string, _ []string, _ string) (int64, error) {
	st, _ := c.member(address).report.read(math.MaxInt64)
	return st.Step, c.refuses
}

func (c *crew) fetch(ctx context.Context, w Wanted) (*state.State, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if w.Coordinator != nil {
		c.restores++
		if s, ok := c.states[w.Step]; ok {
			return s, nil
		}
		return nil, fmt.Errorf("no checkpoint of step %d", w.Step)
	}
	if ctx.Err() == nil {
		c.fetches++
	}
	s, err := c.members[w.Peers[0]].replica.at(ctx, w.Step)
	if err != nil {
		return nil, err
	}
	return s.State, nil
}
