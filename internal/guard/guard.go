// Package guard calls what the author of a task has written. A panic there is an error that names its place in the
// author's code; the whole stack is for the log.
package guard

import (
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"

	"evenweave"
)

// Panic is a panic that became an error.
type Panic struct {
	Value any
	// Place is the file and line of the author's code that panicked, or that called what did; "": none was under way.
	Place string
	Stack []byte // nil: a library panicked where others return an error, which says all
}

func (p *Panic) Error() string {
	text := fmt.Sprint(p.Value)
	if p.Stack != nil {
		text = "panic: " + text
	}
	if p.Place != "" {
		text += " (" + p.Place + ")"
	}
	return text
}

// Unwrap returns the value of the panic, if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

// Recover, deferred, makes a panic the error of the function that it is deferred in.
func Recover(err *error) {
	if r := recover(); r != nil {
		*err = recovered(r)
	}
}

// RecoverThrown is Recover for a library that panics with an error where others return one. doing says what was done.
func RecoverThrown(err *error, doing string) {
	r := recover()
	if r == nil {
		return
	}
	p := recovered(r)
	_, is := r.(error)
	if _, defect := r.(runtime.Error); is && !defect {
		p.Stack = nil
	}
	*err = fmt.Errorf("%s: %w", doing, p)
}

func recovered(value any) *Panic { return &Panic{Value: value, Place: place(), Stack: debug.Stack()} }

// Log writes the stack of the panic in an error, if there is one, to a log.
func Log(log *slog.Logger, err error) {
	if p, ok := errors.AsType[*Panic](err); ok && p.Stack != nil {
		log.Error("a panic in the code of the task, or of what it calls", "err", p, "stack", string(p.Stack))
	}
}

// Data opens the data of a task.
func Data(t *evenweave.Task, dir string) (sets evenweave.Sets, err error) {
	defer Recover(&err)
	if sets, err = t.Data(dir); err == nil && sets.Train == nil {
		err = errors.New("Data returned no samples to train on: Sets.Train is nil")
	}
	return sets, err
}

// Model builds the model of a task.
func Model(t *evenweave.Task, setup evenweave.Setup) (m evenweave.Model, err error) {
	defer Recover(&err)
	if m, err = t.Model(setup); err == nil && m == nil {
		err = errors.New("Model returned neither a model nor an error")
	}
	return m, err
}

const mostFrames = 256 // of a stack are looked at

// place finds the author's code in the stack of the panic that is being recovered.
func place() string {
	pcs := make([]uintptr, mostFrames)
	next := runtime.CallersFrames(pcs[:runtime.Callers(1, pcs)])
	var frames []runtime.Frame
	for more := true; more; {
		var f runtime.Frame
		f, more = next.Next()
		frames = append(frames, f)
	}
	var modules []string
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			modules = append(modules, m.Path)
		}
	}
	return placeIn(frames, modules)
}

// placeIn is the first frame, after the panic began, of the program's main package or of one of the modules, but this
// one and GoMLX. The rest is the standard library.
func placeIn(frames []runtime.Frame, modules []string) string {
	module := strings.TrimSuffix(packageOf(frames[0].Function), "/internal/guard")
	began := slices.IndexFunc(frames, func(f runtime.Frame) bool { return f.Function == "runtime.gopanic" })
	for _, f := range frames[began+1:] {
		pkg := packageOf(f.Function)
		if belongs(pkg, module+"/cli") || belongs(pkg, module+"/evenweavetest") {
			return "" // below it is only what has started the program, or a test
		}
		if pkg == "main" || slices.ContainsFunc(modules, func(m string) bool {
			return m != "" && m != module && !strings.HasPrefix(m, "github.com/gomlx/") && belongs(pkg, m)
		}) {
			return fmt.Sprintf("%s:%d", filepath.Base(f.File), f.Line)
		}
	}
	return ""
}

// packageOf is the path of a function's package.
func packageOf(function string) string {
	slash := strings.LastIndexByte(function, '/') + 1
	dot := strings.IndexByte(function[slash:], '.')
	return function[:slash+max(0, dot)]
}

func belongs(pkg, parent string) bool { return pkg == parent || strings.HasPrefix(pkg, parent+"/") }
