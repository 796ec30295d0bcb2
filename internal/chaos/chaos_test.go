package chaos_test

import (
	"context"
	"flag"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"evenweave/internal/chaos"
)

// For a longer search: go test ./internal/chaos -run TestFaultsChangeNothing -args -first 100 -seeds 50 -keep /tmp/runs
var (
	first = flag.Uint64("first", 6, "the first seed")
	seeds = flag.Uint64("seeds", 2, "how many seeds")
	keep  = flag.String("keep", "", "directory to keep the runs in")
)

// logged shows what a run under faults does, in the test's log.
type logged struct{ t testing.TB }

func (l logged) Write(b []byte) (int, error) {
	l.t.Helper()
	l.t.Log(strings.TrimRight(string(b), "\n"))
	return len(b), nil
}

func directory(t *testing.T) string {
	if *keep != "" {
		return filepath.Join(*keep, t.Name())
	}
	return t.TempDir()
}

// under trains with and without faults and fails the test unless the bits are equal.
func under(t *testing.T, seed uint64, workers int, steps int64, kinds ...chaos.Kind) *chaos.Outcome {
	t.Helper()
	if testing.Short() {
		t.Skip("runs clusters of processes: skipped by -short")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	out, err := chaos.Run(ctx, chaos.Config{
		Plan:    chaos.Plan{Seed: seed, Workers: workers, Steps: steps, Kinds: kinds, CheckpointEvery: 10},
		Dir:     directory(t),
		Cluster: processes(t, seed, steps, 10, workers, 8, time.Millisecond),
	}, chaos.NewText(logged{t}))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TestFaultsChangeNothing is the promise of rules of elasticity 1 to 10, in a short form.
func TestFaultsChangeNothing(t *testing.T) {
	for seed := *first; seed < *first+*seeds; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			under(t, seed, 3, 150, chaos.Kinds()...)
		})
	}
}

var kills = flag.Int("kills", 0, "measure recovery from so many single SIGKILLs of full worlds of 4; see also "+
	"`evenweave chaos --faults kill --settle`")

// TestKills measures; it is run by hand: go test ./internal/chaos -run TestKills -v -args -kills 100
func TestKills(t *testing.T) {
	if *kills == 0 {
		t.Skip("a measurement: give -kills")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 9*time.Minute)
	defer cancel()
	steps := int64(60 * *kills)
	cluster := processes(t, 1, steps, 1000, 4, 4, 5*time.Millisecond)
	out, err := chaos.Run(ctx, chaos.Config{
		Plan: chaos.Plan{Seed: 1, Workers: 4, Steps: steps, Kinds: []chaos.Kind{chaos.Kill}, Count: *kills,
			Single: true},
		Dir: directory(t), Spares: 2, Settle: true, Cluster: cluster,
	}, chaos.NewText(logged{t}))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d recoveries", len(out.Account.Recoveries))
}
