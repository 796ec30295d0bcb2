package chaos

import (
	"os/exec"
	"testing"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
)

// A fault during a change of the world must leave a member to train, and must not fail.
func TestAMemberStays(t *testing.T) {
	net := newNetwork(false)
	defer net.close()
	world := &job.World{Generation: 1}
	for member, process := range map[string]string{"a": "worker-1", "b": "worker-2"} {
		cmd := exec.Command("sleep", "60")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
		net.started(process, cmd.Process.Pid)
		net.process[member] = process
	}
	world.Peers = []job.Peer{{ID: "a"}, {ID: "b"}}
	in := &injector{net: net, watch: newWatcher(), workers: 2, leaving: map[string]bool{}}
	inject := func(rank int, w *job.World) string {
		i := Injection{Fault: Fault{Kind: Leave, Ranks: []int{rank}}}
		in.inject(t.Context(), &i, cluster.View{World: w})
		return i.Skipped
	}
	if skipped := inject(0, world); skipped != "" || in.left != 1 {
		t.Errorf("the first of two: skipped because %q", skipped)
	}
	if inject(1, world) == "" || inject(0, world) == "" || in.left != 1 { // the world still names both
		t.Error("the last one was asked to leave, or the first one twice")
	}
	i := Injection{Fault: Fault{Kind: Flip, Ranks: []int{0}}}
	in.inject(t.Context(), &i, cluster.View{World: &job.World{Generation: 2, Peers: world.Peers[:1]}})
	if i.Skipped == "" {
		t.Error("a bit was flipped where no peer compares")
	}
	if inject(0, &job.World{Generation: 2}) == "" {
		t.Error("a fault without a world was carried out")
	}
}
