package worker

import (
	"context"
	"math"
	"math/rand/v2"
	"os"
	"os/signal"
	"syscall"
)

// faultsVariable, set to 1, lets SIGUSR1 flip a bit of the live state: `evenweave chaos` shows that it is found and healed.
const faultsVariable = "EVENWEAVE_FAULTS"

// flips damages the state on every SIGUSR1 until ctx ends. Without the variable it returns at once.
func (l *Loop) flips(ctx context.Context) {
	if os.Getenv(faultsVariable) != "1" {
		return
	}
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
