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

// Signs of life are no silence, and the time that they cover is not what parts take.
func TestSignsOfLifeDoNotCount(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, end := context.WithCancelCause(t.Context())
		w := NewWatch(ctx, end, time.Minute, time.Second)
		w.Wait(true)
		for range 100 {
			time.Sleep(time.Minute - 10*time.Second) // virtual
			w.Sign()
		}
		if ctx.Err() != nil {
			t.Fatal(context.Cause(ctx))
		}
		w.Arrived()
		for range 3 { // without signs parts must come at their pace
			time.Sleep(30 * time.Second)
			w.Arrived()
		}
		if err := context.Cause(ctx); !errors.Is(err, ErrSlow) {
			t.Errorf("%v, want slowness", err)
		}
	})
}
