package progress

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"evenweave"
)

// A script finds each metric under its own name, and those that it knew under the names of before.
func TestMetricsAreFieldsOfTheirNames(t *testing.T) {
	for _, e := range []struct {
		event Event
		want  map[string]any
	}{
		{Step{Step: 7, Loss: 2.5, Metrics: []Metric{{"accuracy", 0.5}, {"bits/byte", 1.25}, {"mae", -3e-9}}},
			map[string]any{"step": 7.0, "loss": 2.5, "accuracy": 0.5, "bits/byte": 1.25, "mae": -3e-9}},
		{Evaluation{Figures: []evenweave.Figure{figure("perplexity", 12.5, -1)},
			Holdout: []evenweave.Figure{figure("perplexity", 13, -1)}},
			map[string]any{"test_perplexity": 12.5, "holdout_perplexity": 13.0}},
		{Evaluation{Figures: []evenweave.Figure{figure("accuracy", 0.9, 1), figure("loss", 0.25, -1)}},
			map[string]any{"test_accuracy": 0.9, "test_loss": 0.25}},
		{Done{Figures: []evenweave.Figure{figure("accuracy", 0.9, 1), figure("f1 \"macro\"", 0.8, 1)}},
			map[string]any{"test_accuracy": 0.9, `test_f1 "macro"`: 0.8}},
		{Done{}, map[string]any{"test_accuracy": nil, "test_loss": nil}},
	} {
		line, err := Encode(Record{noon, e.event})
		if err != nil {
			t.Fatal(err)
		}
		var fields map[string]any
		if err := json.Unmarshal(line, &fields); err != nil {
			t.Fatal(err)
		}
		for name, value := range e.want {
			if got, there := fields[name]; !there || got != value {
				t.Errorf("%s: field %s is %v, want %v", line, name, got, value)
			}
		}
		if r, err := Decode(line); err != nil || !reflect.DeepEqual(r.Event, e.event) {
			t.Errorf("%s is read as %+v, %v", line, r.Event, err)
		}
	}
}

// Whatever names are allowed, every value comes back under its name, and no field of the step's own changes.
func TestAnyMetricsSurviveTheirLine(t *testing.T) {
	random := rand.New(rand.NewPCG(3, 4))
	letters := []rune("aZ_9-/. \"\\<\u00e9\u4e16")
	for range 2000 {
		want := Step{Step: 1 + random.IntN(9), Loss: random.Float64(), Workers: 2, Seconds: 0.25}
		var names []string
		for range random.IntN(6) {
			name := ""
			for range 1 + random.IntN(9) {
				name += string(letters[random.IntN(len(letters))])
			}
			if random.IntN(4) == 0 {
				name = stepFields[random.IntN(len(stepFields))]
			}
			if random.IntN(4) == 0 {
				name = strings.ToUpper(name)
			}
			if CheckMetrics(append(names, name)) == nil {
				names = append(names, name)
				want.Metrics = append(want.Metrics, Metric{name, random.NormFloat64() * 1e6})
			}
		}
		line, err := Encode(Record{noon, want})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := Decode(line); err != nil || !reflect.DeepEqual(got.Event, want) {
			t.Fatalf("%q: %s is read as %+v, %v", names, line, got.Event, err)
		}
	}
}

func TestNamesThatNoMetricCanHave(t *testing.T) {
	if err := CheckMetrics([]string{"accuracy", "perplexity", "top 5", "Mean/error"}); err != nil {
		t.Error(err)
	}
	for _, names := range [][]string{{""}, {"loss"}, {"Loss"}, {"step"}, {"event"}, {"mae", "mae"}, {"a\x1b[2J"},
		{strings.Repeat("x", 41)}, make([]string, MaxMetrics+1)} {
		if err := CheckMetrics(names); err == nil {
			t.Errorf("%q is allowed", names)
		}
	}
}

// What an evaluation gives is recorded by its names, except what is no number.
func TestFiguresAreNamed(t *testing.T) {
	all := []evenweave.Figure{
		{Name: "perplexity", Value: 12, Better: evenweave.Lower},
		{Name: "broken", Value: math.NaN(), Better: -1},
		{Name: "accuracy", Value: 2, Better: evenweave.Higher},
	}
	got, err := Figures(all)
	want := []evenweave.Figure{{Name: "perplexity", Value: 12, Better: -1}, {Name: "accuracy", Value: 2, Better: 1}}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("figures %+v, %v", got, err)
	}
	for want, bad := range map[string][]evenweave.Figure{
		"figure 1":             {{Name: "", Better: 1}},
		"two figures":          {{Name: "a", Value: math.NaN(), Better: 1}, {Name: "a", Better: 1}},
		"printable characters": {{Name: "\x1b[2J", Better: 1}},
		"at most 64":           make([]evenweave.Figure, MaxMetrics+1),
		`"a" of the model's evaluation has Better 0`: {{Name: "a"}},
		"has Better 2": {{Name: "a", Better: 2}},
	} {
		if got, err := Figures(bad); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%d figures give %v, %v; want %s", len(bad), got, err, want)
		}
	}
}
