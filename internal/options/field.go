package options

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"time"
	"unicode/utf8"
)

// MaxText is the longest text that an option may hold, in bytes.
const MaxText = 4096

// Field is one option. Its methods String, Set and Type make it the value of a flag.
type Field struct {
	// Flag is the name of its flag without dashes, "" if it has none.
	Flag string
	// Spec is its name in a job's spec, "" if the spec does not hold it.
	Spec string
	// Help is one line for people.
	Help string
	// Create says that only the process which creates or resumes a job has the flag.
	Create bool
	name   string
	value  reflect.Value
	bounds []bound
}

// IsBool says whether the flag may stand without a value.
func (f *Field) IsBool() bool { return f.value.Kind() == reflect.Bool }

// Type names the type of the value, as --help shows it.
func (f *Field) Type() string {
	if f.textual() != nil {
		return "string"
	}
	switch f.value.Interface().(type) {
	case float64:
		return "float"
	case time.Duration:
		return "duration"
	}
	return f.value.Kind().String()
}

// textual is the value if it reads and writes its text itself, else nil.
func (f *Field) textual() textual {
	t, _ := f.value.Addr().Interface().(textual)
	return t
}

// String is the value as Set reads it.
func (f *Field) String() string {
	if t := f.textual(); t != nil {
		text, err := t.MarshalText()
		if err != nil {
			panic(err) // it was written when the options were read, and Set takes what can be written
		}
		return string(text)
	}
	if f.value.Kind() == reflect.Float64 {
		return strconv.FormatFloat(f.value.Float(), 'g', -1, 64)
	}
	return fmt.Sprint(f.value.Interface())
}

// Set gives the option the value that a text stands for. After an error the value is as before.
func (f *Field) Set(text string) error {
	if t := f.textual(); t != nil {
		return setTextual(t, text)
	}
	var (
		v   any
		err error
	)
	switch f.value.Interface().(type) {
	case string:
		if len(text) > MaxText || !utf8.ValidString(text) {
			return fmt.Errorf("%d bytes: expected at most %d, of UTF-8", len(text), MaxText)
		}
		v = text
	case bool:
		v, err = strconv.ParseBool(text)
	case int:
		v, err = strconv.Atoi(text)
	case int64:
		v, err = strconv.ParseInt(text, 10, 64)
	case time.Duration:
		v, err = time.ParseDuration(text)
	case uint64:
		v, err = strconv.ParseUint(text, 10, 64)
	case float64:
		var x float64
		if x, err = strconv.ParseFloat(text, 64); err == nil && (math.IsNaN(x) || math.IsInf(x, 0)) {
			err = errInfinite
		}
		v = x
	}
	if err != nil { // whose own text may quote as much as there is
		if errors.Is(err, strconv.ErrRange) || errors.Is(err, errInfinite) {
			return fmt.Errorf("%.80q: expected a value of type %s: it is out of range", text, f.Type())
		}
		return fmt.Errorf("%.80q: expected a value of type %s", text, f.Type())
	}
	if err := f.bounded(v); err != nil {
		return fmt.Errorf("%.80q: %w", text, err)
	}
	f.value.Set(reflect.ValueOf(v))
	return nil
}

// setTextual sets a value of the task's own type. A value that cannot be written as text again is refused, and the one
// before stays.
func setTextual(t textual, text string) error {
	if len(text) > MaxText || !utf8.ValidString(text) {
		return fmt.Errorf("%d bytes: expected at most %d, of UTF-8", len(text), MaxText)
	}
	before := reflect.ValueOf(t).Elem().Interface()
	if err := t.UnmarshalText([]byte(text)); err != nil {
		return err
	}
	if written, err := t.MarshalText(); err != nil || len(written) > MaxText || !utf8.Valid(written) {
		reflect.ValueOf(t).Elem().Set(reflect.ValueOf(before))
		return errors.Join(fmt.Errorf("the whole value has %d bytes: expected at most %d, of UTF-8", len(written),
			MaxText), err)
	}
	return nil
}

var errInfinite = errors.New("it is not finite")

// encode is the value as a spec holds it.
func (f *Field) encode() json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	v := f.value.Interface()
	if f.textual() != nil {
		v = f.String()
	}
	if d, ok := v.(time.Duration); ok {
		v = d.String()
	}
	if err := e.Encode(v); err != nil {
		panic(err) // a text, a bool or a finite number
	}
	return bytes.TrimSpace(b.Bytes())
}

// decode gives the option the value that a spec holds.
func (f *Field) decode(raw json.RawMessage) error {
	text := string(raw)
	if t := f.Type(); t == "string" || t == "duration" {
		var s *string
		if err := json.Unmarshal(raw, &s); err != nil || s == nil {
			return fmt.Errorf("%.80q: expected a text", text)
		}
		text = *s
	}
	return f.Set(text)
}
