package cluster

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

// Membership keeps one member registered under a lease, through outages of etcd: a lost lease is replaced by a new one.
type Membership struct {
	client *Client
	ttl    time.Duration
	log    *slog.Logger

	mu      sync.Mutex
	record  job.Member
	changed chan struct{}
	joined  bool
}

// NewMembership prepares a registration; Run makes and keeps it. The log gets each new cause of a failure once.
func NewMembership(c *Client, m job.Member, ttl time.Duration, log *slog.Logger) *Membership {
	return &Membership{client: c, ttl: ttl, log: log, record: m, changed: make(chan struct{}, 1)}
}

// Update replaces the registered record, for example to say that the member is leaving.
func (m *Membership) Update(change func(*job.Member)) {
	m.mu.Lock()
	change(&m.record)
	m.mu.Unlock()
	select {
	case m.changed <- struct{}{}:
	default:
	}
}

// Registered reports whether the record is in etcd, as far as this process knows.
func (m *Membership) Registered() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.joined
}

// Run keeps the member registered until ctx ends, then removes it. The caller owns the goroutine.
func (m *Membership) Run(ctx context.Context) {
	logged := ""
	for ctx.Err() == nil {
		err := m.hold(ctx)
		m.mark(false)
		if ctx.Err() == nil && err.Error() != logged {
			logged = err.Error()
			m.log.Warn("not registered in etcd: trying again", "err", logged)
		}
		select {
		case <-ctx.Done():
		case <-time.After(200 * time.Millisecond):
		}
	}
}

func (m *Membership) mark(joined bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.joined = joined
}

// hold registers under one lease and returns why the registration ended: no lease was granted, the lease was lost, or
// ctx has ended.
func (m *Membership) hold(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx) // ends the renewals of an abandoned lease
	defer cancel()
	lease, err := grant(ctx, m.client.etcd, m.ttl)
	if err != nil {
		return err
	}
	defer func() { // also after ctx: a leaving member should not stay registered until its lease ends
		c, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
		defer cancel()
		_, _ = m.client.etcd.Revoke(c, lease)
	}()
	alive, err := m.client.etcd.KeepAlive(ctx, lease)
	if err != nil {
		return err
	}
	for {
		m.mu.Lock()
		record := m.record
		m.mu.Unlock()
		c, cancel := context.WithTimeout(ctx, requestTimeout)
		_, err := m.client.etcd.Put(c, m.client.keys.member(record.ID), string(encode(record)),
			clientv3.WithLease(lease))
		cancel()
		if err != nil {
			return err
		}
		m.mark(true)
		for waiting := true; waiting; {
			select {
			case _, ok := <-alive:
				if !ok {
					return errors.New("the lease ran out")
				}
			case <-m.changed:
				waiting = false
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
}

func grant(ctx context.Context, etcd *clientv3.Client, ttl time.Duration) (clientv3.LeaseID, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := etcd.Grant(ctx, int64((ttl+time.Second-1)/time.Second))
	if err != nil {
		return 0, err
	}
	return r.ID, nil
}
