// Package cluster is Evenweave's one home for etcd: the records of members, of the world and of the leader.
//
// All records of a job have one key prefix and are read together (View): an event only means "read all again". Leases
// admit members; only the coordinator evicts them. The leader's writes are fenced twice: by the create revision of its
// leadership key and by the revision of the record that it replaces.
package cluster

import (
	"context"
	"errors"
	"fmt"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"

	"evenweave/internal/job"
	"evenweave/internal/security"
)

// requestTimeout bounds every single request to etcd.
const requestTimeout = 3 * time.Second

// ErrNoJob says that etcd answers and holds no such job.
var ErrNoJob = errors.New("no such job in etcd")

// ErrFenced says that nothing was written: another leader has taken over, or the record has changed since it was read.
var ErrFenced = errors.New("fenced: leadership or the record has moved on")

// Client reaches the keys of one job. Safe for concurrent use.
type Client struct {
	etcd      *clientv3.Client
	keys      keys
	endpoints []string
	over      *security.Transport
}

// Dial prepares a client for the job of the given name. It does not wait for etcd: requests do, within their deadlines.
func Dial(endpoints []string, name string) (*Client, error) {
	return DialOver(security.For(endpoints), endpoints, name)
}

// DialOver is Dial over a given transport; nil: that of the endpoints, without TLS.
func DialOver(over *security.Transport, endpoints []string, name string) (*Client, error) {
	if over == nil {
		over = security.For(endpoints)
	}
	endpoints, err := Endpoints(endpoints)
	if err != nil {
		return nil, err
	}
	if err := job.CheckName(name); err != nil {
		return nil, fmt.Errorf("job %w", err)
	}
	config := clientv3.Config{
		Endpoints:            endpoints,
		DialTimeout:          5 * time.Second,
		DialKeepAliveTime:    2 * time.Second,
		DialKeepAliveTimeout: 2 * time.Second,
		MaxCallRecvMsgSize:   maxResponse,
		Logger:               zap.NewNop(),
		// Traffic between the processes of a cluster never goes through a proxy.
		DialOptions: []grpc.DialOption{grpc.WithNoProxy(), grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2,
				MaxDelay: time.Second},
			MinConnectTimeout: 2 * time.Second,
		}), grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 10 * time.Second, Timeout: 2 * time.Second})},
	}
	if over.Keys() != nil { // else by the endpoint: https is verified by the system's authorities
		config.DialOptions = append(config.DialOptions, grpc.WithTransportCredentials(over.Credentials(security.Etcd)))
	}
	c, err := clientv3.New(config)
	if err != nil {
		return nil, fmt.Errorf("etcd %v: %w", endpoints, err)
	}
	return &Client{etcd: c, keys: keys{prefix: "/evenweave/" + name}, endpoints: endpoints, over: over}, nil
}

// Transport is how the processes of the job are reached: over TCP without a client.
func (c *Client) Transport() *security.Transport {
	if c == nil {
		return security.For(nil)
	}
	return c.over
}

// Close releases the connections.
func (c *Client) Close() error { return c.etcd.Close() }

// View is everything that etcd holds of a job at one revision.
type View struct {
	Revision int64
	Job      *job.Job   // nil: there is no such job
	World    *job.World // nil: none published yet
	Done     *job.Done
	Leader   *job.Leader  // nil: none, or its record cannot be used
	Members  []job.Member // by registration, oldest first
	Workers  int          // wanted worker count of a local run; 0: not set
	Skipped  []error      // unusable records, named by their keys: the job goes on without them

	origin
}

// Member returns the registered member of that id.
func (v View) Member(id string) (job.Member, bool) {
	for _, m := range v.Members {
		if m.ID == id {
			return m, true
		}
	}
	return job.Member{}, false
}

// Keys are those of a member, by its record and by the world; "": of all members.
func (v View) Keys(member string) (keys []string) {
	for _, m := range v.Members {
		if member == "" || m.ID == member {
			keys = append(keys, m.Keys...)
		}
	}
	if v.World != nil {
		for id, known := range v.World.Keys {
			if member == "" || id == member {
				keys = append(keys, known...)
			}
		}
	}
	return keys
}

// SetWorkers writes the wanted worker count of a local run. It returns the first revision of a View that has it.
func (c *Client) SetWorkers(ctx context.Context, n int) (revision int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	r, err := c.etcd.Put(ctx, c.keys.workers(), fmt.Sprint(n))
	if err != nil {
		return 0, err
	}
	return r.Header.Revision, nil
}
