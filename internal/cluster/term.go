package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"

	"evenweave/internal/job"
)

// Term is one stretch of leadership. Every write is a transaction that fails with ErrFenced once the term is over.
type Term struct {
	client   *Client
	session  *concurrency.Session
	election *concurrency.Election
}

// Campaign waits until this coordinator leads or ctx ends. The term's context ends with the leadership.
func (c *Client) Campaign(ctx context.Context, leader job.Leader, ttl time.Duration) (*Term, error) {
	if err := leader.Validate(); err != nil {
		return nil, fmt.Errorf("the leader's record: %w", err)
	}
	lease, err := grant(ctx, c.etcd, ttl)
	if err != nil {
		return nil, c.explain(ctx, err)
	}
	// The session outlives ctx: Resign must be able to revoke its lease when ctx has ended.
	session, err := concurrency.NewSession(c.etcd, concurrency.WithLease(lease),
		concurrency.WithContext(context.WithoutCancel(ctx)))
	if err != nil {
		return nil, fmt.Errorf("etcd session: %w", err)
	}
	t := &Term{client: c, session: session, election: concurrency.NewElection(session, c.keys.election())}
	// Campaign does not watch its own session, so its context must.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(session.Ctx(), cancel)()
	if err := t.election.Campaign(waiting, encode(leader)); err != nil {
		t.Resign(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("campaign: %w", errors.Join(err, context.Cause(ctx)))
	}
	return t, nil
}

// Number orders terms: the create revision of the leadership key.
func (t *Term) Number() int64 { return t.election.Rev() }

// Context ends when the leadership is over.
func (t *Term) Context() context.Context { return t.session.Ctx() }

// Resign ends the leadership, so that a successor need not wait until the lease runs out.
func (t *Term) Resign(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	t.session.Orphan()
	_, _ = t.client.etcd.Revoke(ctx, t.session.Lease())
}

func (t *Term) leads() clientv3.Cmp {
	return clientv3.Compare(clientv3.CreateRevision(t.election.Key()), "=", t.election.Rev())
}

func (t *Term) commit(ctx context.Context, condition clientv3.Cmp, ops ...clientv3.Op) error {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := t.client.etcd.Txn(ctx).If(t.leads(), condition).Then(ops...).Commit()
	if err != nil {
		return err
	}
	if !r.Succeeded {
		return ErrFenced
	}
	return nil
}

func (t *Term) unchanged(key string, revision int64) clientv3.Cmp {
	return clientv3.Compare(clientv3.ModRevision(key), "=", revision)
}

// CreateJob writes the job record. If there is one already, it returns ErrFenced.
func (t *Term) CreateJob(ctx context.Context, j job.Job) error {
	k := t.client.keys
	return t.commit(ctx, t.unchanged(k.job(), 0), clientv3.OpPut(k.job(), encode(j)), clientv3.OpDelete(k.world()),
		clientv3.OpDelete(k.done()))
}

// ReplaceJob updates the job record that was read in the view.
func (t *Term) ReplaceJob(ctx context.Context, read View, j job.Job) error {
	return t.commit(ctx, t.unchanged(t.client.keys.job(), read.jobRevision),
		clientv3.OpPut(t.client.keys.job(), encode(j)))
}

// Extend gives a job that was read in the view more to do: it updates the job's record, takes the end back, and has the
// world stand as one that was halted, so that the next one goes on.
func (t *Term) Extend(ctx context.Context, read View, j job.Job) error {
	k := t.client.keys
	ops := []clientv3.Op{clientv3.OpPut(k.job(), encode(j)), clientv3.OpDelete(k.done())}
	if read.World != nil {
		w := *read.World
		w.Halt = true
		ops = append(ops, clientv3.OpPut(k.world(), encode(w)))
	}
	return t.commit(ctx, t.unchanged(k.job(), read.jobRevision), ops...)
}

// PublishWorld replaces the world that was read in the view.
func (t *Term) PublishWorld(ctx context.Context, read View, w job.World) error {
	k := t.client.keys
	w.Reason = job.Clean(w.Reason) // it quotes members
	if err := w.Validate(); err != nil {
		return fmt.Errorf("the world's record: %w", err)
	}
	return t.commit(ctx, t.unchanged(k.world(), read.worldRevision), clientv3.OpPut(k.world(), encode(w)))
}

// Finish writes the end of the job, or of this part of it.
func (t *Term) Finish(ctx context.Context, d job.Done) error {
	d.Failure = job.Clean(d.Failure)
	if err := d.Validate(); err != nil {
		return fmt.Errorf("the record of the job's end: %w", err)
	}
	return t.commit(ctx, t.leads(), clientv3.OpPut(t.client.keys.done(), encode(d)))
}

// Reopen deletes the record of the end, so that a stopped job goes on.
func (t *Term) Reopen(ctx context.Context) error {
	return t.commit(ctx, t.leads(), clientv3.OpDelete(t.client.keys.done()))
}
