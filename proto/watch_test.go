package proto

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// A call that nothing comes for ends after quiet and not before; what the caller takes its time for, and a pause of
// this process, are no silence.
func TestSilenceEndsACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		w := NewWatch(ctx, end, time.Minute, time.Hour)
		for range 100 {
			w.Wait(true)
			time.Sleep(time.Minute - time.Second) // virtual
			w.Arrived()
			w.Wait(false)
			time.Sleep(time.Hour)
		}
		w.Wait(true)
		w.count(ctx) // late, as after a pause of hours
		time.Sleep(time.Minute - 10*time.Second)
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
		time.Sleep(15 * time.Second)
		if err := context.Cause(ctx); !errors.Is(err, ErrSilent) {
			t.Errorf("%v, want silence", err)
		}
	})
}
