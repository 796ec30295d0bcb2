package job_test

import (
	"encoding/json"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"evenweave/internal/job"
)

func options(text string) (o job.Options) {
	if err := json.Unmarshal([]byte(text), &o); err != nil {
		panic(err)
	}
	return o
}

// Each option that differs has its own line; texts stand without quotes; a way through JSON changes nothing.
func TestDiffNamesEachOption(t *testing.T) {
	ours := changed(spec, func(s *job.Spec) {
		s.Options = options(
			`{"classes":"0-4","rate":0.5,"flip":true,"<x>":"<&>"}`)
	})
	encoded, err := json.Marshal(ours)
	if err != nil {
		t.Fatal(err)
	}
	var again job.Spec
	if err := json.Unmarshal(encoded, &again); err != nil || len(ours.Diff(again)) != 0 {
		t.Errorf("after a way through JSON: %v, %q", err, ours.Diff(again))
	}
	theirs := changed(ours, func(s *job.Spec) {
		s.Options = options(`{"classes":"","rate":0.25,"flip":true,"<x>":"<&>","init":"ab"}`)
		s.Task, s.Seed, s.Epochs, s.Steps = "other", 9, 3, 7
	})
	want := []string{"task: here tiny, there other", "classes: here 0-4, there ", "init: here none, there ab",
		"rate: here 0.5, there 0.25",
		"seed: here 0, there 9", "epochs: here 10, there 3", "steps: here 0, there 7"}
	if got := ours.Diff(theirs); !slices.Equal(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// Of texts that hold settings each one that differs is named; other texts as they are.
func TestDiffNamesEachSettingOfAText(t *testing.T) {
	for _, row := range [][3]string{
		{"layers=2;rate=0.1", "layers=2;rate=0.2", "set rate: here 0.1, there 0.2"},
		{"layers=2;rate=0.1", "/a/rate=3;layers=2", "set /a/rate: here none, there 3|set rate: here 0.1, there none"},
		{"a=1;b=2", "b=2;a=1", "set: here a=1;b=2, there b=2;a=1"}, {"a=1", "", "set: here a=1, there "},
		{"a=1", "a=1;a=2", "set: here a=1, there a=1;a=2"}, {"a=", "a=none", "set: here a=, there a=none"},
		{"a=1;b", "a=2;b", "set: here a=1;b, there a=2;b"}, {"a=1", "a=1", ""},
	} {
		ours, theirs := spec, spec
		ours.Options = options(`{"set":"` + row[0] + `"}`)
		theirs.Options = options(`{"set":"` + row[1] + `"}`)
		if got := strings.Join(ours.Diff(theirs), "|"); got != row[2] {
			t.Errorf("%q and %q: %s, want %s", row[0], row[1], got, row[2])
		}
	}
}

// A spec that stops at what is not finite is as it was before there was a choice, so that older runs go on.
func TestOnNonfiniteIsNamed(t *testing.T) {
	encoded, err := json.Marshal(spec)
	if err != nil || strings.Contains(string(encoded), "nonfinite") {
		t.Errorf("%s, %v", encoded, err)
	}
	skip := changed(spec, func(s *job.Spec) { s.OnNonfinite = job.Skip })
	if got, want := skip.Diff(spec), []string{"on_nonfinite: here skip, there stop"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	if err := skip.Validate(); err != nil {
		t.Error(err)
	}
	skip.OnNonfinite = "ignore"
	if err := skip.Validate(); err == nil || !strings.Contains(err.Error(), "must be stop or skip") {
		t.Errorf("%v", err)
	}
}

// The number of samples is named once, also when an option of the task says it too.
func TestSamplesAreNamedOnce(t *testing.T) {
	few := changed(spec, func(s *job.Spec) { s.Samples, s.Options = 100, options(`{"samples":100}`) })
	many := changed(spec, func(s *job.Spec) { s.Samples, s.Options = 640, options(`{"samples":640}`) })
	if got, want := few.Diff(many), []string{"samples: here 100, there 640"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	many.Options = few.Options
	if got, want := few.Diff(many), []string{"samples: here 100, there 640"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// An extension changes the length alone, and is recorded; one that adds nothing is refused.
func TestExtended(t *testing.T) {
	at := time.Unix(1e9, 0)
	longer, err := spec.Extended(changed(spec, func(s *job.Spec) { s.Epochs = 20 }), 4690, at)
	want := changed(spec, func(s *job.Spec) {
		s.Epochs, s.History = 20,
			[]job.Extension{{Epochs: 10, Step: 4690, Time: at}}
	})
	if err != nil || !reflect.DeepEqual(longer, want) {
		t.Fatalf("%+v, %v", longer, err)
	}
	twice, err := longer.Extended(changed(spec, func(s *job.Spec) { s.Steps = 9381 }), 9380, at)
	if err != nil || len(twice.History) != 2 || len(longer.History) != 1 || twice.TotalSteps() != 9381 {
		t.Errorf("%+v, %v", twice, err)
	}
	other := changed(spec, func(s *job.Spec) { s.Seed = 7 })
	if !twice.Continues(spec) || !twice.Continues(longer) || !twice.Continues(twice) || spec.Continues(twice) ||
		twice.Continues(other) {
		t.Error("a spec continues itself and what it was, nothing else")
	}
	if !longer.LongerThan(spec) || spec.LongerThan(spec) || longer.LongerThan(other) ||
		!reflect.DeepEqual(twice.Original(), spec) {
		t.Error("an extended spec is longer than the original")
	}
	for _, same := range []job.Spec{spec, changed(spec, func(s *job.Spec) { s.Steps = 4690 }),
		changed(spec, func(s *job.Spec) { s.Epochs = 9 })} {
		if _, err := spec.Extended(same, 4690, at); err == nil || !strings.Contains(err.Error(), "not more") {
			t.Errorf("%+v: %v", same, err)
		}
	}
	full := changed(spec, func(s *job.Spec) { s.History = make([]job.Extension, 100) })
	if _, err := full.Extended(changed(spec, func(s *job.Spec) { s.Epochs = 20 }), 1, at); err == nil {
		t.Error("the history has no bound")
	}
}
