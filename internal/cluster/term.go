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
	leader   job.Leader
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
	t := &Term{client: c, session: session, leader: leader,
		election: concurrency.NewElection(session, c.keys.election())}
	// Campaign does not watch its own session, so its context must.
	waiting, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(session.Ctx(), cancel)()
	if err := t.election.Campaign(waiting, string(encode(leader))); err != nil {
		t.Resign(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("campaign: %w", errors.Join(err, context.Cause(ctx)))
	}
	return t, nil
}

// Number orders terms while etcd keeps its data: the create revision of the leadership key.
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

// write puts records in the place of those of the view that was read, if none of them has changed since.
func (t *Term) write(ctx context.Context, read View, r records) error {
	ops, err := r.puts(t.client.over, t.client.keys, time.Now())
	if err != nil {
		return err
	}
	conditions := []clientv3.Cmp{t.leads()}
	for i, key := range t.client.keys.sealed() {
		conditions = append(conditions, clientv3.Compare(clientv3.ModRevision(key), "=", read.revisions[i]))
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	answer, err := t.client.etcd.Txn(ctx).If(conditions...).Then(ops...).Commit()
	if err == nil && !answer.Succeeded {
		err = ErrFenced
	}
	return err
}

// ReplaceLeader writes this leader's record again if the view has another, or none. ErrFenced: the term is over.
func (t *Term) ReplaceLeader(ctx context.Context, read View) error {
	if read.Leader != nil && *read.Leader == t.leader {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	put := clientv3.OpPut(t.election.Key(), string(encode(t.leader)), clientv3.WithLease(t.session.Lease()))
	answer, err := t.client.etcd.Txn(ctx).If(t.leads()).Then(put).Commit()
	if err == nil && !answer.Succeeded {
		err = ErrFenced
	}
	return err
}

// CreateJob writes the job record. If there is one already, it returns ErrFenced.
func (t *Term) CreateJob(ctx context.Context, read View, j job.Job) error {
	read.revisions[0] = 0
	return t.write(ctx, read, records{Job: &j, origin: read.origin})
}

// ReplaceJob updates the job record that was read in the view. It seals the other records again, too: the leader's
// first transaction, and its answer to records that a stranger has written.
func (t *Term) ReplaceJob(ctx context.Context, read View, j job.Job) error {
	r := read.records()
	r.Job = &j
	return t.write(ctx, read, r)
}

// Extend gives a job that was read in the view more to do: it updates the job's record, removes the end, and marks the
// world as halted, so that the next world goes on.
func (t *Term) Extend(ctx context.Context, read View, j job.Job) error {
	r := read.records()
	r.Job, r.Done = &j, nil
	if read.World != nil {
		w := *read.World
		w.Halt = true
		r.World = &w
	}
	return t.write(ctx, read, r)
}

// PublishWorld replaces the world that was read in the view.
func (t *Term) PublishWorld(ctx context.Context, read View, w job.World) error {
	w.Reason = job.Clean(w.Reason) // it quotes members
	if err := w.Validate(); err != nil {
		return fmt.Errorf("the world's record: %w", err)
	}
	r := read.records()
	r.World = &w
	return t.write(ctx, read, r)
}

// Finish writes the end of the job, or of this part of it.
func (t *Term) Finish(ctx context.Context, read View, d job.Done) error {
	d.Failure = job.Clean(d.Failure)
	if err := d.Validate(); err != nil {
		return fmt.Errorf("the record of the job's end: %w", err)
	}
	r := read.records()
	r.Done = &d
	return t.write(ctx, read, r)
}

// Reopen deletes the record of the end, so that a stopped job goes on.
func (t *Term) Reopen(ctx context.Context, read View) error {
	r := read.records()
	r.Done = nil
	return t.write(ctx, read, r)
}
