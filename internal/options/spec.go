package options

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Spec is the values that a job pins, by their names.
func (s *Set) Spec() map[string]json.RawMessage {
	values := map[string]json.RawMessage{}
	for _, f := range s.fields {
		if f.Spec != "" {
			values[f.Spec] = f.encode()
		}
	}
	return values
}

// Load gives the options the values that a job's spec holds. A spec that holds others than these belongs to another
// build of the program.
func (s *Set) Load(spec map[string]json.RawMessage) error {
	var names []string
	for _, f := range s.fields {
		if f.Spec == "" {
			continue
		}
		names = append(names, f.Spec)
		raw, ok := spec[f.Spec]
		if !ok {
			return fmt.Errorf("the job's spec has no option %q, which this program has: start it from the build that "+
				"created the job", f.Spec)
		}
		if err := f.decode(raw); err != nil {
			return fmt.Errorf("the job's option %q: %w", f.Spec, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(spec)) {
		if !slices.Contains(names, name) {
			return fmt.Errorf("the job's spec has an option %.40q, which this program has not (it has %s): start it "+
				"from the build that created the job", name, strings.Join(names, ", "))
		}
	}
	return nil
}
