package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
)

// flips damages the state on every SIGUSR1 until ctx ends: `evenweave chaos` shows that the damage is found and healed.
// It is part of the worker because chaos tests the program that a cluster runs, not one built for tests. It runs only
// where Config.Faults is set.
func (l *Loop) flips(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			where, err := l.replica.flip(rand.Int64(), rand.IntN(8))
			l.Log.Warn("flipped a bit, as asked", "where", where, "err", err)
		}
	}
}

// flip changes one bit of the live state directly, as a faulty memory would: of any tensor.
// It waits only for what computes on the state, because a model must not be written to meanwhile.
func (r *replica) flip(at int64, bit int) (where string, err error) {
	r.unchanged.Lock() // in the order of commit, which computes a fingerprint meanwhile
	defer r.unchanged.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.computing.Lock()
	defer r.computing.Unlock()
	at %= r.layout.Size
	tensor := 0
	for tensor+1 < len(r.layout.Offsets) && r.layout.Offsets[tensor+1] <= at {
		tensor++
	}
	within := min(at-r.layout.Offsets[tensor], r.layout.Tensors[tensor].Bytes()-1)
	b := make([]byte, 1)
	where = fmt.Sprintf("byte %d, bit %d of %s", within, bit, r.layout.Tensors[tensor].Name)
	if err := r.live.Read(tensor, within, b); err != nil {
		return where, err
	}
	b[0] ^= 1 << bit
	return where, r.live.Write(tensor, within, b)
}
