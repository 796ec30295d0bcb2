package processors

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSharesAreEqualAndDisjoint(t *testing.T) {
	all := []int{0, 1, 2, 3, 6, 7, 9}
	for n := 1; n <= len(all); n++ {
		var together []int
		for i := range n {
			s := Share(all, n, i)
			if len(s) != len(all)/n && len(s) != len(all)/n+1 {
				t.Errorf("share %d of %d is %v of %v", i, n, s, all)
			}
			together = append(together, s...)
		}
		if !slices.Equal(together, all) {
			t.Errorf("%d shares make %v of %v", n, together, all)
		}
	}
	if s := Share(all, 8, 3); !slices.Equal(s, all) {
		t.Errorf("more shares than processors: %v, want all", s)
	}
}

// allowed is the kernel's list of processors for a process.
func allowed(t *testing.T, pid int) string {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "Cpus_allowed_list:")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

func TestStartAndBind(t *testing.T) {
	all := Available()
	if len(all) < 2 {
		t.Skip("one processor only")
	}
	before := allowed(t, os.Getpid())
	cmd := exec.Command("sleep", "60")
	if err := Start(cmd, all[1:2]); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if got := allowed(t, cmd.Process.Pid); got != fmt.Sprint(all[1]) {
		t.Errorf("started on processors %s, want %d", got, all[1])
	}
	if err := Bind(cmd.Process.Pid, all[:1]); err != nil {
		t.Fatal(err)
	}
	if got := allowed(t, cmd.Process.Pid); got != fmt.Sprint(all[0]) {
		t.Errorf("moved to processors %s, want %d", got, all[0])
	}
	if after := allowed(t, os.Getpid()); after != before {
		t.Errorf("this process had processors %s, now %s", before, after)
	}
	if err := Bind(1<<30, all[:1]); err != nil {
		t.Errorf("a process that is not there: %v", err)
	}
}

func TestOnOne(t *testing.T) {
	runtime.LockOSThread() // the setting belongs to a thread
	defer runtime.UnlockOSThread()
	before, failure := Available(), errors.New("from within")
	err := OnOne(func() error {
		if during := Available(); len(during) != 1 || !slices.Contains(before, during[0]) {
			t.Errorf("processors %v within, want one of %v", during, before)
		}
		return failure
	})
	if !errors.Is(err, failure) {
		t.Errorf("error %v, want %v", err, failure)
	}
	if after := Available(); !slices.Equal(after, before) {
		t.Errorf("processors %v afterwards, want %v", after, before)
	}
}

func TestNoSuchProcessor(t *testing.T) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := Available()
	if slices.Contains(before, 1023) {
		t.Skip("this machine has them all")
	}
	cmd := exec.Command("true")
	if err := Start(cmd, []int{1023}); err == nil || !strings.Contains(err.Error(), "[1023]") || cmd.Process != nil {
		t.Errorf("started %v, error %v", cmd.Process, err)
	}
	if after := Available(); !slices.Equal(after, before) {
		t.Errorf("processors %v afterwards, want %v", after, before)
	}
}

func TestBatchIsOfAllThreadsAndInherited(t *testing.T) {
	if os.Getenv("EVENWEAVE_TEST_BATCH") == "" { // in a process of its own, because it cannot be undone
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "EVENWEAVE_TEST_BATCH=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	if err := Batch(); err != nil {
		t.Fatal(err)
	}
	sleep := exec.Command("sleep", "60")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = sleep.Process.Kill()
		_ = sleep.Wait()
	}()
	threads := 0
	for _, pid := range []int{os.Getpid(), sleep.Process.Pid} {
		err := eachThread(pid, func(id int) error {
			threads++
			if a, err := unix.SchedGetAttr(id, 0); err != nil || a.Policy != unix.SCHED_BATCH {
				t.Errorf("process %d, thread %d: %+v, %v", pid, id, a, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if threads < 3 {
		t.Errorf("%d threads looked at", threads)
	}
}
