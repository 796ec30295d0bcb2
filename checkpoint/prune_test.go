package checkpoint

import (
	"math"
	"os"
	"path/filepath"
	"testing"
)

// A leader that was paused removes nothing once another has begun to save: the older files that it would remove may be
// those that its successor keeps for their evaluation. It may have been paused anywhere, also while it verified files.
func TestAnOldLeaderPrunesNothing(t *testing.T) {
	for name, saves := range map[string]func(t *testing.T, here string){
		"a checkpoint": func(t *testing.T, here string) { mustSave(t, open(t, here, Options{}), 9, 7) },
		"one half written": func(t *testing.T, here string) {
			left := filepath.Join(here, filepath.Base(tempName(fileName(9, 7))))
			if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			here := t.TempDir()
			for step := int64(1); step <= 5; step++ {
				mustSave(t, open(t, here, Options{}), step, 1)
			}
			once := false
			old := open(t, here, Options{FS: atOpen{do: func() { // it is paused, and the next one leads
				if !once {
					once = true
					saves(t, here)
				}
			}}})
			for range 2 {
				if removed, err := old.Prune(t.Context(), 1, 2); err != nil || len(removed) != 0 || !once {
					t.Errorf("an old leader removed %v, %v", removed, err)
				}
			}
			if removed, err := old.Prune(t.Context(), 7, 2); err != nil || len(removed) < 3 {
				t.Errorf("the leader removed %v, %v", removed, err)
			}
		})
	}
}

// Terms rise in a directory even if those of etcd begin again: what was left half written is swept, and pruned as ever.
func TestTermsRiseInADirectory(t *testing.T) {
	here := filepath.Join(t.TempDir(), "checkpoints")
	s := open(t, here, Options{})
	expect := func(given, want int64) {
		t.Helper()
		if term, err := s.Term(given); err != nil || term != want {
			t.Errorf("given term %d, got %d, %v; want %d", given, term, err, want)
		}
	}
	expect(5, 5)
	mustSave(t, s, 1, 500)
	expect(5, 501)
	expect(900, 900)
	left := filepath.Join(here, filepath.Base(tempName(fileName(2, 700))))
	if err := os.WriteFile(left, []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	expect(5, 701)
	mustSave(t, s, 2, 701)
	if _, err := os.Stat(left); err == nil {
		t.Error("what was left half written is still there")
	}
	if removed, err := s.Prune(t.Context(), 701, 1); err != nil || len(removed) != 1 {
		t.Errorf("removed %v, %v", removed, err)
	}
	if err := os.WriteFile(filepath.Join(here, fileName(0, math.MaxInt64)), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	expect(5, math.MaxInt64)
}
