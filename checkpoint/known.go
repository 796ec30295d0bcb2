package checkpoint

import (
	"io/fs"
	"slices"
	"time"
)

// sound is a file that this process has written, or has read whole: while size and time stay, it is not hashed again.
type sound struct {
	size     int64
	modified time.Time
	manifest Manifest
	durable  bool // its name too: this process has synced the directory since
}

// stater is a file with a size and a time; without them the store remembers nothing of a file.
type stater interface{ Stat() (fs.FileInfo, error) }

func (s *Store) remember(path string, f any, m Manifest) {
	if file, ok := f.(stater); ok && s.known != nil {
		if info, err := file.Stat(); err == nil {
			s.knowing.Lock()
			defer s.knowing.Unlock()
			s.known[path] = sound{info.Size(), info.ModTime(), m, false}
		}
	}
}

func (s *Store) recall(path string, f any) (known sound, ok bool) {
	file, has := f.(stater)
	if !has {
		return sound{}, false
	}
	info, err := file.Stat()
	s.knowing.Lock()
	defer s.knowing.Unlock()
	known, ok = s.known[path]
	if ok = ok && err == nil && info.Size() == known.size && info.ModTime().Equal(known.modified); !ok {
		delete(s.known, path)
	}
	return known, ok
}

// settled records that the name of a known file is durable.
func (s *Store) settled(path string) {
	s.knowing.Lock()
	defer s.knowing.Unlock()
	if known, ok := s.known[path]; ok {
		known.durable = true
		s.known[path] = known
	}
}

// settle makes the names of valid checkpoints durable, if they are not known to be: another process may have renamed
// them a moment ago, and died.
func (s *Store) settle(valid ...Entry) error {
	s.knowing.Lock()
	all := !slices.ContainsFunc(valid, func(e Entry) bool { return !s.known[e.Path].durable })
	s.knowing.Unlock()
	if all {
		return nil
	}
	if err := s.syncDir(s.dir); err != nil {
		return err
	}
	for _, e := range valid {
		s.settled(e.Path)
	}
	return nil
}

func (s *Store) forget(path string) {
	s.knowing.Lock()
	defer s.knowing.Unlock()
	delete(s.known, path)
}
