package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"evenweave"
	"evenweave/internal/job"
)

// Metric is a named number of a step, which the task's model reports beside the loss.
type Metric struct {
	Name  string
	Value float64
}

// Bounds of the names that a task gives to numbers.
const (
	MaxMetrics = 64 // of a step, and figures of an evaluation
	maxName    = 40
)

// CheckMetrics returns nil if a step's event can hold metrics of these names, each as a field.
func CheckMetrics(names []string) error {
	if len(names) > MaxMetrics {
		return fmt.Errorf("%d metrics: at most %d", len(names), MaxMetrics)
	}
	for i, name := range names {
		if err := CheckName(name); err != nil {
			return fmt.Errorf("metric %d: %w", i+1, err)
		}
		if isStepField(name) || slices.Contains(names[:i], name) {
			return fmt.Errorf("metric %d: the name %q is taken: choose another", i+1, name)
		}
	}
	return nil
}

// CheckName returns nil if a metric or figure can have this name.
func CheckName(name string) error {
	if name == "" || len(name) > maxName || name != job.Clean(name) {
		return fmt.Errorf("the name %q: expected 1 to %d printable characters", job.Clean(name), maxName)
	}
	return nil
}

// Figures are those of a model's evaluation as events and JSON have them. One that is no finite number is left out:
// JSON cannot hold it.
func Figures(all []evenweave.Figure) (out []evenweave.Figure, err error) {
	if len(all) > MaxMetrics {
		return nil, fmt.Errorf("the model's evaluation gave %d figures: at most %d", len(all), MaxMetrics)
	}
	for i, f := range all {
		if err := CheckName(f.Name); err != nil {
			return nil, fmt.Errorf("figure %d of the model's evaluation: %w", i+1, err)
		}
		if slices.ContainsFunc(all[:i], func(g evenweave.Figure) bool { return g.Name == f.Name }) {
			return nil, fmt.Errorf("the model's evaluation gave two figures of the name %q", f.Name)
		}
		if f.Better != evenweave.Lower && f.Better != evenweave.Higher {
			return nil, fmt.Errorf("figure %q of the model's evaluation has Better %d: set it to evenweave.Lower or "+
				"evenweave.Higher, by which the best checkpoint is chosen", f.Name, f.Better)
		}
		if Finite(f.Value) {
			out = append(out, f)
		}
	}
	return out, nil
}

// Finite reports whether x is a number that JSON can hold.
func Finite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// Find returns the value of the figure of that name.
func Find(figures []evenweave.Figure, name string) (value float64, ok bool) {
	for _, f := range figures {
		if f.Name == name {
			return f.Value, true
		}
	}
	return 0, false
}

// Metric returns the value of the step's metric of that name.
func (s Step) Metric(name string) (value float64, ok bool) {
	for _, m := range s.Metrics {
		if m.Name == name {
			return m.Value, true
		}
	}
	return 0, false
}

// stepFields are the names of a step's own fields in JSON; never written to.
var stepFields = fieldsOf(reflect.TypeFor[Step]())

func fieldsOf(t reflect.Type) (names []string) {
	names = []string{"event", "time"}
	for i := range t.NumField() {
		if name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ","); name != "-" {
			names = append(names, name)
		}
	}
	return names
}

// isStepField says whether no metric can have this name. Package json reads fields whatever their case.
func isStepField(name string) bool {
	return slices.ContainsFunc(stepFields, func(f string) bool { return strings.EqualFold(f, name) })
}

// MarshalJSON writes each metric as a field of its name.
func (s Step) MarshalJSON() ([]byte, error) {
	type plain Step
	object, err := json.Marshal(plain(s))
	if err != nil {
		return nil, err
	}
	for _, m := range s.Metrics {
		if object, err = withNumber(object, m.Name, m.Value); err != nil {
			return nil, err
		}
	}
	return object, nil
}

// UnmarshalJSON takes each number field that is none of a step's own as a metric.
func (s *Step) UnmarshalJSON(object []byte) error {
	type plain Step
	if err := json.Unmarshal(object, (*plain)(s)); err != nil {
		return err
	}
	s.Metrics = nil
	in := json.NewDecoder(bytes.NewReader(object))
	if _, err := in.Token(); err != nil {
		return err
	}
	for in.More() {
		key, err := in.Token()
		if err != nil {
			return err
		}
		var value json.RawMessage
		if err := in.Decode(&value); err != nil {
			return err
		}
		name, _ := key.(string)
		number, err := strconv.ParseFloat(string(value), 64)
		if err != nil || isStepField(name) || CheckName(name) != nil || len(s.Metrics) == MaxMetrics {
			continue // of another version
		}
		if _, twice := s.Metric(name); !twice {
			s.Metrics = append(s.Metrics, Metric{name, number})
		}
	}
	return nil
}

// MarshalJSON writes each figure also as a field: test_NAME, and holdout_NAME of those on held-out samples.
func (e Evaluation) MarshalJSON() ([]byte, error) {
	type plain Evaluation
	object, err := json.Marshal(plain(e))
	object, err = withFigures(object, err, "test_", e.Figures)
	return withFigures(object, err, "holdout_", e.Holdout)
}

// MarshalJSON writes each figure also as a field test_NAME. Readers find test_accuracy and test_loss, null, also where
// nothing was evaluated.
func (d Done) MarshalJSON() ([]byte, error) {
	type plain Done
	object, err := json.Marshal(plain(d))
	if err == nil && len(d.Figures) == 0 {
		return append(object[:len(object)-1], `,"test_accuracy":null,"test_loss":null}`...), nil
	}
	return withFigures(object, err, "test_", d.Figures)
}

// withFigures adds fields to a JSON object.
func withFigures(object []byte, err error, prefix string, figures []evenweave.Figure) ([]byte, error) {
	for _, f := range figures {
		if err == nil {
			object, err = withNumber(object, prefix+f.Name, f.Value)
		}
	}
	return object, err
}

// withNumber adds a field to a JSON object that has one already.
func withNumber(object []byte, name string, value float64) ([]byte, error) {
	key, err := json.Marshal(name)
	if err != nil {
		return nil, err
	}
	number, err := json.Marshal(value)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	object = append(append(object[:len(object)-1], ','), key...)
	return append(append(append(object, ':'), number...), '}'), nil
}

// IsShare says whether a metric or figure is shown as a percentage.
func IsShare(name string) bool { return strings.HasSuffix(name, "accuracy") }

// Number writes a value for people: a share as a percentage, others with four digits after the point, or with five
// digits where that would be too few or too many.
func Number(name string, v float64) string {
	switch size := math.Abs(v); {
	case IsShare(name) && size <= 1:
		return fmt.Sprintf("%.2f%%", 100*v)
	case size != 0 && (size < 0.01 || size >= 10000):
		return fmt.Sprintf("%.5g", v)
	}
	return fmt.Sprintf("%.4f", v)
}
