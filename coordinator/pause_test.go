package coordinator

import (
	"testing"
	"time"
)

// TestTermsThatEndAtOnceAreSpacedOut: in 12 s there were 400 of them when a record in etcd could not be read.
func TestTermsThatEndAtOnceAreSpacedOut(t *testing.T) {
	const ttl = 5 * time.Second
	terms, pause := 0, time.Duration(0)
	for at := time.Duration(0); at < 12*time.Second; terms++ {
		pause = pauseAfter(pause, time.Millisecond, ttl)
		at += pause
	}
	if terms > 7 {
		t.Errorf("%d terms in 12 s", terms)
	}
	for range 100 {
		pause = pauseAfter(pause, time.Millisecond, ttl)
	}
	if pause > 10*time.Second {
		t.Errorf("a pause of %v: once the cause is gone, a coordinator is needed", pause)
	}
	if pause = pauseAfter(pause, ttl, ttl); pause != 0 {
		t.Errorf("a pause of %v after a term that lasted", pause)
	}
}
