package worker

import (
	"sync"
	"time"
	"unsafe"
)

const (
	// hasState: a spare that has been sent so many bytes of steps reads them, and so has its state. Windows and sockets
	// hold less.
	hasState      = 64 << 20
	unusedBuffers = 2 // buffers are kept for the next steps
	// Memory is made in pieces of touchBytes. Between two of them the training goes on for restTimes as long as a piece
	// took, at most longestRest. After gentleFor there are no rests any more: a spare waits, or a due state is near.
	touchBytes  = 256 << 10
	restTimes   = 19
	longestRest = 20 * time.Millisecond
	gentleFor   = 2 * time.Minute
)

// room is memory for spares: the next copy of the state, and buffers of steps. It is made before the copy, a little at
// a time. The kernel may take several times as long to give a page as the copy takes to fill it, and the other members
// would wait for that. (Where this process had the memory before, Go clears all of it at once.) The log's mu guards all
// but size and words.
type room struct {
	size   int64 // bytes of a copy
	words  int   // of a buffer
	stage  stage // of the memory for the next copy
	image  []byte
	unused [][]int64 // buffers that no reader needs any more
	begun  time.Time // to make it
	ended  bool      // none is made any more
	making sync.WaitGroup
}

type stage int

const (
	missing stage = iota
	inTheMaking
	made
)

// hasRoom reports whether there is memory for a copy, and sees to it that there will be. l.mu is held.
func (l *updateLog) hasRoom() bool {
	if l.room.stage == missing && !l.room.ended {
		l.room.stage, l.room.begun = inTheMaking, time.Now()
		l.room.making.Go(l.makeRoom)
	}
	return l.room.stage == made
}

// makeRoom ends early if no reader is left.
func (l *updateLog) makeRoom() {
	l.mu.Lock()
	buffers := make([][]int64, unusedBuffers-len(l.room.unused))
	l.mu.Unlock()
	image := make([]byte, l.room.size)
	needed := touch(image, l.rest)
	for i := 0; i < len(buffers) && needed; i++ {
		buffers[i] = make([]int64, l.room.words)
		needed = touch(buffers[i], l.rest)
	}
	l.change(func() {
		l.room.stage = missing
		if !needed || len(l.readers) == 0 || l.room.ended {
			return
		}
		l.room.stage, l.room.image = made, image
		for _, b := range buffers {
			l.room.keep(b)
		}
	})
}

// rest lets the training go on after some memory was touched. false: no reader is left.
func (l *updateLog) rest(took time.Duration) bool {
	l.mu.Lock()
	needed, begun := len(l.readers) > 0 && !l.room.ended, l.room.begun
	l.mu.Unlock()
	return rest(took, begun, needed)
}

// rest lets the training go on after some memory was touched, if more of it is needed.
func rest(took time.Duration, begun time.Time, needed bool) bool {
	if needed && time.Since(begun) < gentleFor {
		time.Sleep(min(restTimes*took, longestRest))
	}
	return needed
}

// touch makes the kernel give new memory, a piece at a time: a longer clear would stop all goroutines, if the collector
// of garbage waits for this one. next gets how long a piece took, and may end it.
func touch[T byte | int64](p []T, next func(took time.Duration) bool) bool {
	for size := touchBytes / int(unsafe.Sizeof(T(0))); len(p) > 0; {
		began, n := time.Now(), min(len(p), size)
		clear(p[:n])
		if p = p[n:]; !next(time.Since(began)) {
			return false
		}
	}
	return true
}

// takeImage takes the memory for a copy; nil: there is none.
func (m *room) takeImage() (image []byte) {
	if image, m.image = m.image, nil; m.stage == made {
		m.stage = missing
	}
	return image
}

// takeBuffer takes memory for the buffer of the next step; nil: there is none.
func (l *updateLog) takeBuffer() (words []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m := &l.room
	if last := len(m.unused) - 1; last >= 0 {
		words, m.unused[last] = m.unused[last], nil
		m.unused = m.unused[:last]
	}
	return words
}

// keep keeps a buffer for a step to come.
func (m *room) keep(words []int64) {
	if words != nil && len(m.unused) < unusedBuffers {
		m.unused = append(m.unused, words[:cap(words)])
	}
}

// free gives the memory back.
func (m *room) free() {
	m.takeImage()
	m.unused = nil
}

// end makes no more memory, and waits for what is being made.
func (l *updateLog) end() {
	l.mu.Lock()
	l.room.ended = true
	l.room.free()
	l.mu.Unlock()
	l.room.making.Wait()
}
