package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/etcdtest"
)

// TestAMembersWatcher sees its own record at once, and the other members' in the end.
func TestAMembersWatcher(t *testing.T) {
	s := etcdtest.Start(t, "")
	c, other := dial(t, s), raw(t, s)
	term := campaign(t, c, "leader")
	defer term.Resign(within(t))
	if err := term.CreateJob(within(t), cluster.View{}, created("u")); err != nil {
		t.Fatal(err)
	}
	put(t, other, "members/a", record("a"))
	put(t, other, "members/b", record("b"))
	put(t, other, "members/bad", "{")
	b := cluster.NewWatcher(nil)
	b.Member = "a"
	ctx, cancel := context.WithCancel(t.Context())
	running := make(chan struct{})
	go func() { defer close(running); b.Run(ctx, c) }()
	defer func() { cancel(); <-running }()
	members := func(want ...string) func(cluster.View) bool {
		return func(v cluster.View) bool {
			var ids []string
			for _, m := range v.Members {
				ids = append(ids, m.ID)
			}
			return slices.Equal(slices.Sorted(slices.Values(ids)), want) && len(v.Skipped) == 1
		}
	}
	await(t, b, "both", members("a", "b"))
	for i := range 5 { // more often than it reads all
		host := fmt.Sprintf("host%d", i)
		put(t, other, "members/a", strings.Replace(record("a"), `"job"`, `"host":"`+host+`","job"`, 1))
		v := await(t, b, "its own record", func(v cluster.View) bool {
			m, _ := v.Member("a")
			return m.Host == host
		})
		if !members("a", "b")(v) {
			t.Fatalf("members %+v, skipped %v", v.Members, v.Skipped)
		}
	}
	put(t, other, "members/c", record("c"))
	await(t, b, "a third member", members("a", "b", "c"))
	put(t, other, "members/c", strings.Replace(record("c"), `"job"`, `"host":"another","job"`, 1))
	put(t, other, "members/a", record("a")) // the last change of all; the read for it has no other record
	await(t, b, "the third member's new record", func(v cluster.View) bool {
		m, _ := v.Member("c")
		return m.Host == "another"
	})
	if _, err := other.Delete(within(t), "/evenweave/test/members/a"); err != nil {
		t.Fatal(err)
	}
	await(t, b, "the others alone", members("b", "c"))
}
