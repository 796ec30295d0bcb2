package cli

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// hostile would set a terminal's title, clear it, reorder and hide text, and forge a line of its own.
const hostile = "\x1b]0;title\x07\u009b2J\u202eabc\u2066\u200b\x00\x7f\xff\U000e0041\r\n12:00:00 forged"

// fill sets every text that v holds, however deep, to hostile.
func fill(v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		v.SetString(hostile)
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem())
	case reflect.Slice:
		if v.Type().Elem().Kind() != reflect.Uint8 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(v.Index(0))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() && v.Type() != reflect.TypeFor[time.Time]() {
				fill(v.Field(i))
			}
		}
	}
}

func filled[T any]() T {
	var t T
	fill(reflect.ValueOf(&t).Elem())
	return t
}

// TestOnlyPrintableTextIsPrinted: whatever others write into records, statuses and events, each printer shows printable
// text only, and no line begins with what they wrote.
func TestOnlyPrintableTextIsPrinted(t *testing.T) {
	events := []progress.Event{
		filled[progress.Start](), filled[progress.World](), filled[progress.Step](), filled[progress.Checkpoint](),
		filled[progress.Evaluation](),
		filled[progress.MemberChange](), filled[progress.Notice](), filled[progress.Warning](),
		filled[progress.Failure](), filled[progress.Done](),
		progress.Unknown{Name: hostile,
			Line: []byte(`{"event":"x","time":"2026-01-01T00:00:00Z","y":"` + "\u009b2J\u202e" + `"}`)},
	}
	observed := func(o progress.Observer) {
		for _, e := range events {
			o.Observe(progress.Record{Time: time.Unix(0, 0), Event: e})
		}
	}
	s := filled[snapshot]()
	s.clean()
	blame := []*proto.BlameEvent{{Member: hostile, What: hostile, Detail: hostile}}
	logged := func(format string) func(io.Writer) {
		return func(w io.Writer) {
			log, err := (&logFlags{format, "debug"}).logger(w)
			if err != nil {
				t.Fatal(err)
			}
			log.With("member", hostile).Warn(hostile, "err", errors.New(hostile),
				slog.Group("g", "ids", []string{hostile}))
		}
	}
	for name, show := range map[string]func(io.Writer){
		"lines": func(w io.Writer) { observed(progress.NewPlain(w, time.UTC)) },
		"bar": func(w io.Writer) {
			b := progress.NewBar(w, func() int { return 80 }, time.UTC)
			observed(b)
			_ = b.Close()
		},
		"events":      func(w io.Writer) { observed(progress.NewJSON(w)) },
		"status":      s.show,
		"blame":       func(w io.Writer) { printBlame(w, "text", blame) },
		"blame, JSON": func(w io.Writer) { printBlame(w, "json", blame) },
		"log":         logged("text"),
		"log, JSON":   logged("json"),
		"error":       func(w io.Writer) { printError(w, errors.New(hostile)) },
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			show(&out)
			text := out.String()
			if name == "bar" { // its own movements of the cursor
				text = strings.ReplaceAll(regexp.MustCompile(`\x1b\[[0-9]*[AKJ]`).ReplaceAllString(text, ""), "\r", "")
			}
			if text == "" || !utf8.ValidString(text) {
				t.Errorf("printed %q", text)
			}
			for line := range strings.SplitSeq(text, "\n") {
				if i := strings.IndexFunc(line, func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 ||
					strings.HasPrefix(line, "12:00:00") {
					t.Errorf("printed %q", line)
				}
			}
		})
	}
	if text := job.Escape([]byte(hostile)); !utf8.Valid(text) {
		t.Errorf("escaped to %q", text)
	}
}
