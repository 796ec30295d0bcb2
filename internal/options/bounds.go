package options

import (
	"fmt"
	"math"
	"reflect"
	"strconv"
)

// bound is one of the tags min, max and above, with its number.
type bound struct {
	tag string
	at  float64
}

// mostExact is the largest bound: up to it a float64 holds every whole number.
const mostExact = 1 << 53

// readBounds reads the tags that bound a number.
func (f *Field) readBounds(tags reflect.StructTag) error {
	for _, tag := range []string{"min", "max", "above"} {
		text, has := tags.Lookup(tag)
		if !has {
			continue
		}
		at, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(at) || math.Abs(at) > mostExact {
			return fmt.Errorf("%s:%q: expected a number of at most 2^53", tag, text)
		}
		if _, is := number(f.value.Interface()); !is {
			return fmt.Errorf("%s:%q: type %s has no bounds: expected int, int64, uint64 or float64", tag, text,
				f.value.Type())
		}
		f.bounds = append(f.bounds, bound{tag, at})
	}
	return nil
}

// bounded says which bound a value of the field's type is beyond.
func (f *Field) bounded(v any) error {
	x, _ := number(v)
	for _, b := range f.bounds {
		at := strconv.FormatFloat(b.at, 'f', -1, 64)
		switch {
		case b.tag == "min" && x < b.at:
			return fmt.Errorf("must be at least %s", at)
		case b.tag == "max" && x > b.at:
			return fmt.Errorf("must be at most %s", at)
		case b.tag == "above" && x <= b.at:
			return fmt.Errorf("must be above %s", at)
		}
	}
	return nil
}

func number(v any) (x float64, is bool) {
	switch v := v.(type) {
	case int:
		return float64(v), true
	case int64:
		return float64(v), true
	case uint64:
		return float64(v), true
	case float64:
		return v, true
	}
	return 0, false
}
