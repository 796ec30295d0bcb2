package cluster

import (
	"encoding/json"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"evenweave/internal/job"
)

// records are what the coordinator alone writes: the job, its present world and its end. They are always written
// together, with one number that rises: none of an earlier time can be put in the place of one of them. With
// certificates they are sealed by the coordinator's key.
type records struct {
	Job   *job.Job   // nil: there is no such job
	World *job.World // nil: none published yet
	Done  *job.Done
	origin
}

// origin is where records come from.
type origin struct {
	number    int64 // 0: they have no seals
	jobKey    string
	revisions [3]int64 // of the keys, in etcd, also of a record that cannot be used
	spoilt    []error  // those that cannot be used, named by their keys
}

// records are those of a view.
func (v View) records() records { return records{v.Job, v.World, v.Done, v.origin} }

// The kinds of records, which their seals name.
const (
	kindJob   = "job"
	kindWorld = "world"
	kindDone  = "done"
)

// maxOf is how many bytes a record may have.
func maxOf(kind string) int {
	if kind == kindWorld {
		return job.MaxWorldBytes
	}
	return maxRecord
}

// sealer signs and opens the values of etcd; *security.Transport is one.
type sealer interface {
	Seal(kind string, number int64, record []byte) ([]byte, error)
	Unseal(kind string, value []byte) (record []byte, number int64, err error)
}

// openRecords opens what stands under the three keys; nil: nothing. A record that cannot be used is nil, and named.
func openRecords(by sealer, kvs [3]*mvccpb.KeyValue) (r records) {
	for i, kv := range kvs {
		if kv != nil {
			r.revisions[i] = kv.ModRevision
		}
	}
	if kvs[0] != nil {
		r.jobKey = string(kvs[0].Key)
	}
	var number int64
	open := func(kv *mvccpb.KeyValue, kind string, into interface{ Validate() error }) bool {
		if kv == nil {
			return false
		}
		n, err := open(by, kv.Value, kind, into)
		switch {
		case err != nil || kind == kindJob || r.Job == nil:
		case n > r.number:
			r.Job = nil
			r.spoilt = append(r.spoilt, &BadRecord{Key: r.jobKey, Cause: fmt.Errorf("it has number %d and the %s's "+
				"record %d, but all are written together: an old record has been put back", r.number, kind, n)})
		case n < r.number:
			err = fmt.Errorf("it has number %d and the job's record %d, but all are written together: one of them is "+
				"an old one that was put back", n, r.number)
		}
		if err != nil {
			r.spoilt = append(r.spoilt, &BadRecord{Key: string(kv.Key), Cause: err})
		}
		number = n
		return err == nil
	}
	if j := new(job.Job); open(kvs[0], kindJob, j) {
		r.Job, r.number = j, number
	}
	if w := new(job.World); open(kvs[1], kindWorld, w) {
		r.World, w.Record = w, kvs[1].Value
	}
	if d := new(job.Done); open(kvs[2], kindDone, d) {
		r.Done = d
	}
	return r
}

// open opens one value.
func open(by sealer, value []byte, kind string, into interface{ Validate() error }) (number int64, err error) {
	if most := maxOf(kind); len(value) > most {
		return 0, fmt.Errorf("it has %d bytes: expected at most %d", len(value), most)
	}
	record, number, err := by.Unseal(kind, value)
	if err == nil {
		err = json.Unmarshal(record, into)
	}
	if err == nil {
		err = into.Validate()
	}
	return number, err
}

// OpenWorld opens a world that a peer has passed on.
func (c *Client) OpenWorld(value []byte) (w job.World, err error) {
	_, err = open(c.over, value, kindWorld, &w)
	w.Record = value
	return w, err
}

// keepRecords replaces records that cannot be used by those of an earlier view of the same job. The coordinator's next
// transaction writes them again.
func (v *View) keepRecords(before View) {
	if len(v.spoilt) == 0 || before.Job == nil {
		return
	}
	if v.Job == nil && v.revisions[0] != 0 { // without it the others mean nothing
		v.Job, v.World, v.Done, v.number = before.Job, before.World, before.Done, before.number
		return
	}
	if v.Job == nil || v.Job.UUID != before.Job.UUID {
		return
	}
	if v.World == nil && v.revisions[1] != 0 {
		v.World = before.World
	}
	if v.Done == nil && v.revisions[2] != 0 {
		v.Done = before.Done
	}
}

// spoil says that the job's record, and with it the others, cannot be used.
func (v *View) spoil(why error) {
	bad := &BadRecord{Key: v.jobKey, Cause: why}
	v.Job, v.spoilt, v.Skipped = nil, append(v.spoilt, bad), append(v.Skipped, bad)
}

// Spoilt says that a stranger has written a record of the coordinator's, or damaged it. The view has the one before.
func (v View) Spoilt() bool { return len(v.spoilt) > 0 }

// SpoiltRecords names those records.
func (v View) SpoiltRecords() []error { return v.spoilt }

// encode cannot fail: the records are plain values.
func encode(record any) []byte {
	b, err := json.Marshal(record)
	if err != nil {
		panic(err)
	}
	return b
}

// next is the number of what follows. The clock is in it so that a job that is made again, for example after a loss of
// etcd's data, does not begin below those before it.
func next(number int64, now time.Time) int64 { return max(number+1, now.UnixMilli()) }

// puts writes all records in place of those of a view; nil: it has none of that kind.
func (r records) puts(by sealer, k keys, now time.Time) (ops []clientv3.Op, err error) {
	number := next(r.number, now)
	put := func(key, kind string, record any) {
		var value []byte
		if err == nil {
			value, err = by.Seal(kind, number, encode(record))
		}
		if most := maxOf(kind); len(value) > most {
			err = fmt.Errorf("the record %s would have %d bytes: expected at most %d", kind, len(value), most)
		}
		ops = append(ops, clientv3.OpPut(key, string(value)))
	}
	j := *r.Job
	if w := r.World; w != nil && w.Generation > j.Generation { // it may name an older step than an end that is removed
		j.Generation, j.DurableStep = w.Generation, w.DurableStep
	}
	if r.Done != nil {
		j.DurableStep = max(j.DurableStep, r.Done.Step)
	}
	put(k.job(), kindJob, j)
	if r.World == nil {
		ops = append(ops, clientv3.OpDelete(k.world()))
	} else {
		put(k.world(), kindWorld, r.World)
	}
	if r.Done == nil {
		ops = append(ops, clientv3.OpDelete(k.done()))
	} else {
		put(k.done(), kindDone, r.Done)
	}
	return ops, err
}
