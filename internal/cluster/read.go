package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

const (
	maxRecord   = 64 << 10 // bytes; a world's record has a limit of its own
	maxMembers  = 4096
	memberPage  = 32       // members in one read: that many of etcd's largest values fit into a response
	maxResponse = 64 << 20 // etcd accepts values of 1.5 MB by default
)

// Read fetches the whole view, at one revision. It skips an unusable record of a member or the leader and names it in
// the view; any other unusable record is an error.
func (c *Client) Read(ctx context.Context) (View, error) {
	v, err := c.read(ctx, "")
	if err == nil && v.Spoilt() {
		return View{}, v.spoilt[0]
	}
	return v, c.explain(ctx, err)
}

// ReadToLead is Read for a process that is about to lead the job. Its first transaction writes all records again, so it
// needs the job's record alone: a world or an end that cannot be used is none, and named in the view. A job's record of
// an earlier build does not say which generation follows on a world that cannot be used.
func (c *Client) ReadToLead(ctx context.Context) (View, error) {
	v, err := c.read(ctx, "")
	worldLost := v.World == nil && v.revisions[1] != 0
	if err == nil && v.Spoilt() && (v.Job == nil || worldLost && v.Job.Generation == 0) {
		return View{}, v.spoilt[0]
	}
	return v, c.explain(ctx, err)
}

// read is Read without the explanation of why etcd does not answer, which may take a second. It skips and names
// unusable records of the coordinator too. If only names a member, the view has no other's record.
func (c *Client) read(ctx context.Context, only string) (View, error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	k := c.keys
	members := clientv3.OpGet(k.members(), clientv3.WithPrefix(), clientv3.WithLimit(memberPage))
	if only != "" {
		members = clientv3.OpGet(k.member(only))
	}
	oldest := clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend)
	r, err := c.etcd.Txn(ctx).Then(
		clientv3.OpGet(k.job()), clientv3.OpGet(k.world()), clientv3.OpGet(k.done()), clientv3.OpGet(k.workers()),
		// The others are candidates that wait.
		clientv3.OpGet(k.election()+"/", clientv3.WithPrefix(), oldest, clientv3.WithLimit(1)), members,
	).Commit()
	if err != nil {
		return View{}, err
	}
	get := func(i int) *mvccpb.KeyValue {
		if kvs := r.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			return kvs[0]
		}
		return nil
	}
	v := View{Revision: r.Header.Revision}
	held := openRecords(c.over, [3]*mvccpb.KeyValue{get(0), get(1), get(2)})
	v.Job, v.World, v.Done, v.origin = held.Job, held.World, held.Done, held.origin
	v.Skipped = append(v.Skipped, v.spoilt...)
	v.leader(get(4))
	v.workers(get(3))
	page := r.Responses[5].GetResponseRange()
	return v, c.members(ctx, &v, page.Kvs, page.More)
}

// OtherProtocol counts the members of other builds, which no world can use.
func (v View) OtherProtocol() int {
	n := 0
	for _, m := range v.Members {
		if m.Speaks() != nil {
			n++
		}
	}
	return n
}

// decode ignores fields that it does not know: a newer build may write more.
func decode[T interface{ Validate() error }](kv *mvccpb.KeyValue, r *T) error {
	if len(kv.Value) > maxRecord {
		return fmt.Errorf("it has %d bytes: expected at most %d", len(kv.Value), maxRecord)
	}
	if err := json.Unmarshal(kv.Value, r); err != nil {
		return err
	}
	return (*r).Validate()
}

// BadRecord is a record in etcd that cannot be used.
type BadRecord struct {
	Key   string
	Cause error
}

func (e *BadRecord) Error() string {
	return fmt.Sprintf("etcd key %s: %s; look at it with `etcdctl get`, correct it or remove it with `etcdctl del`",
		job.Clean(e.Key), job.Clean(e.Cause.Error()))
}

func (e *BadRecord) Unwrap() error { return e.Cause }

// members decodes the first page of members and reads the rest, all at the view's revision, in the order of
// registration, oldest first.
func (c *Client) members(ctx context.Context, v *View, page []*mvccpb.KeyValue, more bool) error {
	type registered struct {
		job.Member
		at int64
	}
	var all []registered
	for seen := 0; ; {
		for _, kv := range page {
			var m job.Member
			err := decode(kv, &m)
			if id := strings.TrimPrefix(string(kv.Key), c.keys.members()); err == nil && m.ID != id {
				err = fmt.Errorf("it is the record of member %q", m.ID)
			}
			if err != nil {
				v.Skipped = append(v.Skipped, &BadRecord{Key: string(kv.Key), Cause: err})
				continue
			}
			all = append(all, registered{m, kv.CreateRevision})
		}
		seen += len(page)
		if more && seen >= maxMembers {
			v.Skipped = append(v.Skipped, &BadRecord{Key: c.keys.members(),
				Cause: fmt.Errorf("more than %d members: the rest is ignored", maxMembers)})
		}
		if !more || len(page) == 0 || seen >= maxMembers {
			break
		}
		r, err := c.etcd.Get(ctx, string(page[len(page)-1].Key)+"\x00",
			clientv3.WithRange(clientv3.GetPrefixRangeEnd(c.keys.members())),
			clientv3.WithLimit(memberPage), clientv3.WithRev(v.Revision))
		if err != nil {
			return err
		}
		page, more = r.Kvs, r.More
	}
	slices.SortStableFunc(all, func(a, b registered) int { return cmp.Compare(a.at, b.at) })
	for _, m := range all {
		v.Members = append(v.Members, m.Member)
	}
	return nil
}

// leader decodes the leader's record and skips one that cannot be used. The leader writes its own again.
func (v *View) leader(kv *mvccpb.KeyValue) {
	if kv == nil {
		return
	}
	var l job.Leader
	if err := decode(kv, &l); err != nil {
		v.Skipped = append(v.Skipped, &BadRecord{Key: string(kv.Key), Cause: err})
		return
	}
	v.Leader = &l
}

// workers decodes the wanted worker count and skips one that is no count.
func (v *View) workers(kv *mvccpb.KeyValue) {
	if kv == nil {
		return
	}
	var n int
	err := errors.New("it is longer than any number")
	if len(kv.Value) <= 32 {
		err = json.Unmarshal(kv.Value, &n)
	}
	if err == nil && n < 1 {
		err = fmt.Errorf("%d workers: expected at least 1", n)
	}
	if err != nil {
		v.Skipped = append(v.Skipped, &BadRecord{Key: string(kv.Key), Cause: err})
		return
	}
	v.Workers = n
}
