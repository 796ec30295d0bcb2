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
}

// IsBool says whether the flag may stand without a value.
func (f *Field) IsBool() bool { return f.value.Kind() == reflect.Bool }

// Type names the type of the value, as --help shows it.
func (f *Field) Type() string {
	switch f.value.Interface().(type) {
	case float64:
		return "float"
	case time.Duration:
		return "duration"
	}
	return f.value.Kind().String()
}

// String is the value as Set reads it.
func (f *Field) String() string {
	if f.value.Kind() == reflect.Float64 {
		return strconv.FormatFloat(f.value.Float(), 'g', -1, 64)
	}
	return fmt.Sprint(f.value.Interface())
}

// Set gives the option the value that a text stands for. After an error the value is as before.
func (f *Field) Set(text string) error {
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
	f.value.Set(reflect.ValueOf(v))
	return nil
}

var errInfinite = errors.New("it is not finite")

// encode is the value as a spec holds it.
func (f *Field) encode() json.RawMessage {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	v := f.value.Interface()
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
