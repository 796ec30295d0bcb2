package guard

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"evenweave"
)

// TestPlace: it is in the code of the author, as far up as the panic went through that.
func TestPlace(t *testing.T) {
	own := strings.TrimSuffix(packageOf(caller()), "/internal/guard")
	modules := []string{"reviews", own, "github.com/gomlx/gomlx", "example.org/lib", ""}
	for _, row := range []struct{ frames, want string }{
		{"runtime.gopanic main.read dataset.(*indexed).Load", "f1.go:1"},
		{"runtime.gopanic runtime.sigpanic slices.Sort[...] reviews/words.(*Bag).Less main.main", "f3.go:3"},
		{"runtime.gopanic github.com/gomlx/gomlx/core/graph.Add example.org/lib.Layer main.network", "f2.go:2"},
		{"runtime.gopanic gomlx.(*Model).open runtime.goexit", ""},
		{"runtime.gopanic gomlx.New cli.run cli.Main main.main", ""},             // main starts the program
		{"runtime.gopanic gomlx.New evenweavetest.Verify reviews.TestExact", ""}, // a test starts it
		{"main.recovers runtime.gopanic gomlx.New", ""},
	} {
		all := []runtime.Frame{{Function: own + "/internal/guard.place"}}
		for i, f := range strings.Fields(row.frames) {
			for _, p := range []string{"dataset.", "gomlx.", "cli.", "evenweavetest."} {
				if strings.HasPrefix(f, p) {
					f = own + "/" + f
				}
			}
			all = append(all, runtime.Frame{Function: f, File: fmt.Sprintf("/home/x/f%d.go", i), Line: i})
		}
		if got := placeIn(all, modules); got != row.want {
			t.Errorf("%s: %q, want %q", row.frames, got, row.want)
		}
	}
}

func caller() string {
	pc, _, _, _ := runtime.Caller(0)
	return runtime.FuncForPC(pc).Name()
}

// TestPanicsAreErrors: what was panicked with is found in the error; a library's error is no panic in its text, and has
// no stack.
func TestPanicsAreErrors(t *testing.T) {
	shape := errors.New("shapes differ")
	call := func(f func()) (err error) { defer Recover(&err); f(); return nil }
	build := func(f func()) (err error) { defer RecoverThrown(&err, "building"); f(); return nil }
	for _, row := range []struct {
		err    error
		text   string
		logged bool
	}{
		{call(func() {}), "", false}, {build(func() {}), "", false},
		{call(func() { panic("odd") }), "panic: odd", true},
		{call(func() { panic(shape) }), "panic: shapes differ", true},
		{build(func() { panic(shape) }), "building: shapes differ", false},
		{build(func() { panic("odd") }), "building: panic: odd", true},
		{build(func() { _ = []int(nil)[len(three)] }),
			"building: panic: runtime error: index out of range [3] with length 0", true},
	} {
		var log bytes.Buffer
		Log(slog.New(slog.NewTextHandler(&log, nil)), fmt.Errorf("reading: %w", errors.Join(row.err)))
		if text := fmt.Sprint(row.err); row.err == nil && row.text != "" || row.err != nil && text != row.text ||
			strings.Contains(log.String(), "goroutine ") != row.logged {
			t.Errorf("%q, want %q; logged:\n%s", text, row.text, log.String())
		}
	}
	if err := build(func() { panic(shape) }); !errors.Is(err, shape) {
		t.Errorf("%v is not what was panicked with", err)
	}
}

const three = "abc"

// TestNothingIsRefused: data and models that are not there.
func TestNothingIsRefused(t *testing.T) {
	none := &evenweave.Task{
		Data:  func(string) (evenweave.Sets, error) { return evenweave.Sets{}, nil },
		Model: func(evenweave.Setup) (evenweave.Model, error) { return nil, nil },
	}
	_, data := Data(none, "")
	_, model := Model(none, evenweave.Setup{})
	if data == nil || !strings.Contains(data.Error(), "Sets.Train") || model == nil ||
		!strings.Contains(model.Error(), "Model returned") {
		t.Errorf("%v; %v", data, model)
	}
}
