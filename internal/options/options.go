// Package options reads and writes a struct of options by the tags of its fields, as package evenweave describes them:
// as flags and variables, and as the object that a job's spec pins.
//
//	options.go  the struct's fields: how tags are read
//	field.go    one field: its value as text and as JSON; bounds.go: of numbers
//	spec.go     the values that a job pins, and back
package options

import (
	"encoding"
	"fmt"
	"math"
	"reflect"
	"regexp"
	"strings"
	"time"
)

// Limits of what tags may say.
const (
	maxFields = 200
	maxName   = 40
	maxHelp   = 500
)

// Set is the fields of one struct of options. It reads and writes the struct itself, and is as safe for concurrent use
// as that is.
type Set struct{ fields []*Field }

// Of reads the tags of the struct that pointer points to; nil has no fields. The values that the struct holds now are
// the defaults.
func Of(pointer any) (*Set, error) {
	if pointer == nil {
		return &Set{}, nil
	}
	v := reflect.ValueOf(pointer)
	if v.Kind() != reflect.Pointer || v.IsNil() || v.Elem().Kind() != reflect.Struct {
		return nil, fmt.Errorf("options of type %T: expected a pointer to a struct", pointer)
	}
	s := &Set{}
	if err := s.add(v.Elem()); err != nil {
		return nil, err
	}
	if len(s.fields) > maxFields {
		return nil, fmt.Errorf("options %s: %d fields, expected at most %d", v.Elem().Type(), len(s.fields), maxFields)
	}
	return s, nil
}

// add reads the fields of a struct, and of those that it embeds.
func (s *Set) add(v reflect.Value) error {
	t := v.Type()
	for i := range t.NumField() {
		field := t.Field(i)
		if field.Anonymous && field.Tag == "" && field.IsExported() && field.Type.Kind() == reflect.Struct {
			if err := s.add(v.Field(i)); err != nil {
				return err
			}
			continue
		}
		f, err := read(field, v.Field(i))
		if err != nil {
			return fmt.Errorf("options %s, field %s: %w", t, field.Name, err)
		}
		if f == nil {
			continue
		}
		for _, other := range s.fields {
			if f.Flag != "" && f.Flag == other.Flag || f.Spec != "" && f.Spec == other.Spec {
				return fmt.Errorf("options %s: fields %s and %s have the same name", t, other.name, f.name)
			}
		}
		s.fields = append(s.fields, f)
	}
	return nil
}

const aName = "at most 40 characters a-z, 0-9 and - that begin with a letter"

func isName(s string) bool { return len(s) <= maxName && named.MatchString(s) }

var named = regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`)

// textual is a value of a type of the task's own.
type textual interface {
	encoding.TextMarshaler
	encoding.TextUnmarshaler
}

// read makes a Field of a struct's field; nil: it is no option.
func read(f reflect.StructField, v reflect.Value) (*Field, error) {
	flag, hasFlag := f.Tag.Lookup("flag")
	spec, hasSpec := f.Tag.Lookup("spec")
	if !f.IsExported() {
		if hasFlag || hasSpec {
			return nil, fmt.Errorf("it has tags but is not exported")
		}
		return nil, nil
	}
	out := &Field{name: f.Name, Flag: flag, Help: f.Tag.Get("help"), value: v}
	switch {
	case spec == "-" && !hasFlag:
		return nil, nil
	case !hasFlag && !hasSpec:
		return nil, fmt.Errorf(`it has neither a flag nor a spec tag: name its flag, or leave it out with spec:"-"`)
	case spec == "-,create":
		out.Create = true
	case spec == "-":
	case hasSpec:
		out.Spec = spec
	default:
		out.Spec = flag
	}
	if hasFlag && !isName(flag) {
		return nil, fmt.Errorf("flag:%q: expected %s", flag, aName)
	}
	if out.Spec != "" && !isName(out.Spec) || hasSpec && spec == "" {
		return nil, fmt.Errorf("spec:%q: expected %s", spec, aName)
	}
	if len(out.Help) > maxHelp || strings.ContainsAny(out.Help, "\n\r\x1b") {
		return nil, fmt.Errorf("its help is longer than %d bytes or one line", maxHelp)
	}
	switch v.Interface().(type) {
	case string, bool, int, int64, uint64, time.Duration:
	case float64:
		if x := v.Float(); math.IsNaN(x) || math.IsInf(x, 0) {
			return nil, fmt.Errorf("its default is %v: expected a finite number", x)
		}
	default:
		value, ok := v.Addr().Interface().(textual)
		if !ok {
			return nil, fmt.Errorf("type %s: expected string, bool, int, int64, uint64, float64, time.Duration or one "+
				"that reads and writes text (encoding.TextUnmarshaler, TextMarshaler)", v.Type())
		}
		if _, err := value.MarshalText(); err != nil {
			return nil, fmt.Errorf("its default: %w", err)
		}
	}
	if err := out.readBounds(f.Tag); err != nil {
		return nil, err
	}
	if err := out.bounded(v.Interface()); err != nil {
		return nil, fmt.Errorf("its default is %v: it %w", v.Interface(), err)
	}
	return out, nil
}

// Fields are those of the struct, in its order.
func (s *Set) Fields() []*Field { return s.fields }
