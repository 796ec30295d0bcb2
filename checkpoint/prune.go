package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Prune removes the checkpoints older than the keep >= 1 newest valid ones, except those of the steps in spare, and
// returns their paths. It removes nothing if there are fewer valid ones, and never anything newer than the newest valid
// one. Nor does it for a leader whose term is over: where a higher one has a file, that one says what to spare.
func (s *Store) Prune(ctx context.Context, term int64, keep int, spare ...int64) (removed []string, err error) {
	keep = max(keep, 1)
	entries, err := s.List()
	if err != nil || len(entries) <= keep {
		return nil, err
	}
	valid, _, _, err := s.newest(ctx, entries, keep)
	if err != nil || len(valid) < keep {
		return nil, err
	}
	if err := s.settle(valid...); err != nil {
		return nil, fmt.Errorf("checkpoint: pruning: %w", err)
	}
	oldest := valid[keep-1]
	s.mu.Lock() // not before: no Save waits for files to be read
	defer s.mu.Unlock()
	if highest, err := s.highestTerm(); err != nil || highest > term { // now: this process may have been paused
		return nil, err
	}
	for _, e := range entries {
		if !slices.Contains(spare, e.Step) && (e.Step < oldest.Step || e.Step == oldest.Step && e.Term < oldest.Term) {
			if s.latest == "" || e.Path == s.latest { // "": another process has made the link
				s.pointAtNewest(entries, nil)
			}
			if err := s.fs.Remove(e.Path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return removed, fmt.Errorf("checkpoint: pruning: %w", err)
			}
			s.forget(e.Path)
			removed = append(removed, e.Path)
		}
	}
	return removed, nil
}

// Term is the number of a term that begins now: the one given, or a higher one, above all that the directory has names
// of. Those that etcd gives begin again at 1 when its data is lost.
func (s *Store) Term(number int64) (int64, error) {
	highest, err := s.highestTerm()
	return max(number, min(highest, math.MaxInt64-1)+1), err
}

// highestTerm is that of any name, also of a file that is being written; -1: there is none.
func (s *Store) highestTerm() (highest int64, err error) {
	names, err := s.fs.List(s.dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("checkpoint: listing: %w", err)
	}
	highest = -1
	for _, name := range names {
		if _, term, ok := parseName(finalName(name)); ok {
			highest = max(highest, term)
		}
	}
	return highest, nil
}

func fileName(step, term int64) string { return fmt.Sprintf("step-%08d-term-%010d.ckpt", step, term) }

// parseName reads a name that fileName makes. Every Save reads all names, so it is by hand.
func parseName(name string) (step, term int64, ok bool) {
	rest, begins := strings.CutPrefix(name, "step-")
	rest, ends := strings.CutSuffix(rest, ".ckpt")
	first, second, between := strings.Cut(rest, "-term-")
	if !begins || !ends || !between {
		return 0, 0, false
	}
	step, noStep := strconv.ParseInt(first, 10, 64)
	term, noTerm := strconv.ParseInt(second, 10, 64)
	return step, term, errors.Join(noStep, noTerm) == nil && min(step, term) >= 0 && name == fileName(step, term)
}

func tempName(path string) string {
	return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+".tmp")
}

// finalName is the name that a file of tempName gets once it is written; others are as they are.
func finalName(name string) string {
	if final, ok := strings.CutSuffix(name, ".tmp"); ok && strings.HasPrefix(final, ".") {
		return final[1:]
	}
	return name
}
