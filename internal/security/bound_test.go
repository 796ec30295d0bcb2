package security

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"evenweave/proto"
)

// TestACallIsBoundToTheRegisteredKey: it reaches no process with another key, whatever its role.
func TestACallIsBoundToTheRegisteredKey(t *testing.T) {
	a := authority(t, "job")
	keys := issued(t, a, Worker)
	address, me := serve(t, keys), Over(issued(t, a, Coordinator))
	c, err := grpc.NewClient("passthrough:///"+address, me.Options(Worker)...)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	other := Over(issued(t, a, Worker)).Registered()
	for name, to := range map[string]struct {
		keys []string
		want codes.Code
	}{
		"its key":         {Over(keys).Registered(), codes.OK},
		"among others":    {append(other, Over(keys).Registered()...), codes.OK},
		"another's key":   {other, codes.Unauthenticated},
		"none registered": {nil, codes.Unauthenticated},
	} {
		_, err := proto.NewMemberClient(c).Probe(t.Context(), &proto.ProbeRequest{}, me.ExpectKeys(to.keys)...)
		if status.Code(err) != to.want {
			t.Errorf("%s: %v, want %v", name, err, to.want)
		}
	}
	if plain := For(nil); plain.ExpectKeys(nil) != nil || plain.Registered() != nil ||
		plain.CheckCaller(t.Context(), nil) != nil {
		t.Error("without TLS there are no keys")
	}
	if me.CheckCaller(t.Context(), other) == nil || me.CheckReader(t.Context(), other) == nil {
		t.Error("a caller without a connection is believed")
	}
}

// TestARenewedKeyWaits until the others know it; or until the one before has expired.
func TestARenewedKeyWaits(t *testing.T) {
	for name, expires := range map[string]bool{"known": false, "expired": true} {
		dir, a := cluster(t, time.Now())
		at := files(dir, Worker)
		k, err := Load(at, Identity{Worker, "job"})
		if err != nil {
			t.Fatal(err)
		}
		k.Wait()
		over := Over(k)
		before := over.Registered()
		write(t, at.Cert, nil)
		if made, err := a.Issue(dir+"/worker", Worker, 300*24*time.Hour); err != nil || !made {
			t.Fatal(made, err)
		}
		k.look(quiet, "")
		both := over.Registered()
		if len(both) != 2 || both[0] != before[0] || keyOf(k.set.Load().pair.Leaf) != before[0] {
			t.Fatalf("%s: %q registered, %q before", name, both, before)
		}
		k.Use(before)
		k.look(quiet, "")
		if !slices.Equal(over.Registered(), both) {
			t.Errorf("%s: used although nothing names it", name)
		}
		if expires {
			k.Now = func() time.Time { return time.Now().Add(91 * 24 * time.Hour) }
			k.look(quiet, "")
		} else {
			k.Use(both)
		}
		if now := over.Registered(); len(now) != 1 || now[0] != both[1] || len(k.Changed()) != 1 {
			t.Errorf("%s: %q in use, want %q", name, now, both[1])
		}
	}
}

// TestOtherKeyIsSeenThroughOtherErrors: what a caller adds to an error does not hide it.
func TestOtherKeyIsSeenThroughOtherErrors(t *testing.T) {
	for _, err := range []error{errOtherKey, errUnregistered} {
		if !OtherKey(fmt.Errorf("block 3: %w", err)) {
			t.Errorf("%v is not seen", err)
		}
	}
	if OtherKey(nil) || OtherKey(errors.New("x")) || OtherKey(status.Error(codes.Unauthenticated, "x")) {
		t.Error("another error is taken for it")
	}
}
