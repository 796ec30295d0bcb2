package coordinator

import (
	"testing"

	"evenweave/proto"
)

// What a follower said before it was dropped may still be queued; it must not make a member of it again, nor speak for the process that has its
// id now.
func TestDroppedFollowersAreNotHeard(t *testing.T) {
	now := &proto.Status{Member: "b", Step: 7}
	one := &term{
		followers: map[string]follower{"b": {address: "b:2"}},
		told:      map[string]*proto.Status{"b": now},
	}
	for _, in := range []followed{
		{member: "a", address: "a:1", status: &proto.Status{Member: "a", Holding: true, Due: []int64{9}}},
		{member: "b", address: "b:1", status: &proto.Status{Member: "b", Step: 6}},
		{member: "b", address: "b:1"}, // its stream ended
	} {
		if end, err := one.take(t.Context(), in); end || err != nil {
			t.Errorf("%+v: end %v, %v", in, end, err)
		}
	}
	if len(one.told) != 1 || one.told["b"] != now {
		t.Errorf("heard: %v", one.told)
	}
}
