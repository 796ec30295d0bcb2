package cluster

import "testing"

// Members read little of each other: the record of another one does not wake a member, its own does.
func TestWhatConcernsAMember(t *testing.T) {
	k := keys{"/evenweave/x"}
	all, member := &Watcher{}, &Watcher{Member: "a"}
	for key, want := range map[string]bool{k.world(): true, k.job(): true, k.done(): true, k.member("a"): true,
		k.member("b"): false, k.member("ab"): false} {
		if got := member.concerns(k, key); got != want {
			t.Errorf("member a is woken by %s: %v, want %v", key, got, want)
		}
		if !all.concerns(k, key) {
			t.Errorf("a coordinator is not woken by %s", key)
		}
	}
	if pollFor(1) != pollInterval || pollFor(64) != pollInterval || pollFor(128) != 2*pollInterval ||
		pollFor(1<<20) != longestPoll {
		t.Errorf("polls every %v, %v, %v, %v", pollFor(1), pollFor(64), pollFor(128), pollFor(1<<20))
	}
}
