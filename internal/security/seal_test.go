package security

import (
	"bytes"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave/internal/job"
)

// TestOnlyTheCoordinatorsSealCounts: a record is believed if the coordinator of this job has sealed exactly it, and
// nothing else is. That its certificate has expired since does not matter, nor does the clock of this machine.
func TestOnlyTheCoordinatorsSealCounts(t *testing.T) {
	a, strange := authority(t, "job"), authority(t, "job")
	coordinator := issued(t, a, Coordinator)
	reader := Over(issued(t, a, Worker))
	record := []byte(`{"generation":7}`)
	good, err := Over(coordinator).Seal("world", 9, record)
	if err != nil {
		t.Fatal(err)
	}
	at := func(now time.Time) *Transport {
		k := &Keys{want: reader.keys.want, Now: func() time.Time { return now }}
		k.set.Store(reader.keys.set.Load())
		return Over(k)
	}
	for _, now := range []time.Time{time.Now(), time.Now().Add(1000 * time.Hour), time.Now().Add(-1000 * time.Hour)} {
		if got, n, err := at(now).Unseal("world", good); err != nil || n != 9 || !bytes.Equal(got, record) {
			t.Errorf("at %v: %s, number %d, %v", now, got, n, err)
		}
	}
	if got, n, err := For(nil).Unseal("world", good); err != nil || n != 9 || !bytes.Equal(got, record) {
		t.Errorf("without keys: %s, %d, %v", got, n, err)
	}
	if got, n, err := For(nil).Unseal("world", record); err != nil || n != 0 || !bytes.Equal(got, record) {
		t.Errorf("without keys and seal: %s, %d, %v", got, n, err)
	}
	with := func(change func(*sealed)) []byte {
		var s sealed
		if err := json.Unmarshal(good, &s); err != nil {
			t.Fatal(err)
		}
		change(&s)
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	by := func(k *Keys, jobName string) []byte {
		b, err := seal(k.set.Load().pair, jobName, "world", 9, record)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	worker := issued(t, a, Worker)
	for name, c := range map[string]struct {
		value []byte
		kind  string
		names string
	}{
		"no seal":         {record, "world", "no seal"},
		"of another kind": {good, "done", "damaged"},
		"another number":  {with(func(s *sealed) { s.Number++ }), "world", "damaged"},
		"another record":  {with(func(s *sealed) { s.Record = []byte(`{"generation":8}`) }), "world", "damaged"},
		"a damaged seal":  {with(func(s *sealed) { s.Seal[9] ^= 1 }), "world", "damaged"},
		"by a worker":     {by(worker, "job"), "world", "worker.job.evenweave.internal has sealed it"},
		"a coordinator's chain on a worker's seal": {with(func(s *sealed) {
			_ = json.Unmarshal(by(worker, "job"), s)
			s.Chain = coordinator.set.Load().pair.Certificate
		}), "world", "damaged"},
		"another authority": {by(issued(t, strange, Coordinator), "job"), "world", "vouches"},
		"another job's": {by(issued(t, authority(t, "other"), Coordinator), "other"), "world",
			"coordinator.other"},
		"sealed for another job": {by(coordinator, "other"), "world", "damaged"},
		"no certificate":         {with(func(s *sealed) { s.Chain = nil }), "world", "certificates"},
		"many certificates": {with(func(s *sealed) { s.Chain = append(s.Chain, make([][]byte, 4)...) }), "world",
			"certificates"},
		"no certificate in it": {with(func(s *sealed) { s.Chain[0] = []byte("x") }), "world", "certificate 0"},
		"a later build's": {bytes.Replace(good, []byte(`"version":2`), []byte(`"version":3`), 1), "world",
			"version 3"},
		"no JSON": {[]byte("{"), "world", "JSON"},
	} {
		if got, _, err := reader.Unseal(c.kind, c.value); err == nil || !strings.Contains(err.Error(), c.names) {
			t.Errorf("%s: %s, %v; want an error with %q", name, got, err, c.names)
		}
	}
	if _, _, err := reader.Unseal("world", record); !errors.Is(err, ErrNotSealed) {
		t.Errorf("no seal: %v", err)
	}
	if _, err := reader.Seal("world", 9, record); err == nil {
		t.Error("a worker seals records")
	}
}

// TestARunKeepsItsKey: what a run of one machine has sealed is verified when it is resumed, and by no other run.
func TestARunKeepsItsKey(t *testing.T) {
	dir, other := filepath.Join(t.TempDir(), "seal"), filepath.Join(t.TempDir(), "seal")
	open := func(dir string, now time.Time) *Transport {
		t.Helper()
		if err := KeepSeal(dir, "job", now); err != nil {
			t.Fatal(err)
		}
		over, err := For([]string{"unix:/d/etcd.sock"}).SealedBy(dir, "job")
		if err != nil || over.sockets != "/d" || !over.Sealed() || over.Keys() != nil {
			t.Fatalf("%+v, %v", over, err)
		}
		return over
	}
	b, err := open(dir, time.Now().Add(-time.Minute)).Seal("done", 3, []byte("{}"))
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := open(dir, time.Now()).Unseal("done", b); err != nil || n != 3 {
		t.Errorf("resumed: %d, %v", n, err)
	}
	if _, _, err := open(other, time.Now()).Unseal("done", b); err == nil {
		t.Error("another run believes it")
	}
	if _, err := For(nil).SealedBy(dir, "other"); err == nil {
		t.Error("a job of another name takes the key")
	}
}

// FuzzUnseal: nothing but what the coordinator has sealed is opened, and nothing panics.
func FuzzUnseal(f *testing.F) {
	a, err := newAuthority("job", "job"+domain, time.Now())
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir()
	if _, err := a.Issue(dir, Coordinator, time.Hour); err != nil {
		f.Fatal(err)
	}
	k, err := Load(FilesIn(dir), Identity{Coordinator, "job"})
	if err != nil {
		f.Fatal(err)
	}
	record := []byte(`{"generation":7}`)
	good, err := Over(k).Seal("world", 9, record)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add(record)
	f.Add(bytes.Replace(good, []byte(`"number":9`), []byte(`"number":-9`), 1))
	f.Add([]byte(`{"chain":[""],"seal":"eA==","record":null}`))
	f.Add([]byte(`null`))
	f.Fuzz(func(t *testing.T, value []byte) {
		got, n, err := Over(k).Unseal("world", value)
		if err == nil && (!bytes.Equal(got, record) || n != 9) {
			t.Errorf("%s opens as %s, number %d", value, got, n)
		}
		if got, n, err := For(nil).Unseal("world", value); err == nil && (got == nil || n < 0 || n > job.MaxStep) {
			t.Errorf("%s opens as %q, number %d", value, got, n)
		}
	})
}
