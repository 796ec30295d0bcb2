package worker

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
)

// flips damages the state on every SIGUSR1 until ctx ends: `evenweave chaos` shows that it is found and healed.
func (l *Loop) flips(ctx context.Context) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	defer signal.Stop(asked)
	for {
		select {
		case <-ctx.Done():
			return
		case <-asked:
			value, bit := l.replica.flip(rand.Int(), rand.IntN(32))
			l.Log.Warn("flipped a bit, as asked", "value", value, "bit", bit)
		}
	}
}

// flip changes one bit of the live state behind the back of everything else, as a faulty memory would: parameters or optimizer.
// It may hit while a gradient is computed from them.
func (r *replica) flip(value, bit int) (int, int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	values := r.model.State()
	value %= len(values)
	values[value] = math.Float32frombits(math.Float32bits(values[value]) ^ 1<<bit)
	return value, bit
}
