package job

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"evenweave/internal/schedule"
)

// Spec is what a job trains: everything that changes a bit of the result, and nothing else. The worker count is not in
// it. It is written once, when the job is created, and pinned from then on; only its length may be extended.
type Spec struct {
	Task        string  `json:"task"`              // name of the task
	Options     Options `json:"options,omitempty"` // the task's own
	Data        string  `json:"data"`              // digest of the training data
	Samples     int     `json:"samples"`           // training samples
	Seed        uint64  `json:"seed"`
	GlobalBatch int     `json:"global_batch"`
	MicroBatch  int     `json:"micro_batch"`
	Epochs      int     `json:"epochs"`
	Steps       int64   `json:"steps"` // 0: as many as the epochs have
	// OnNonfinite says what becomes of a step whose sums are not finite: "", it ends the job, or Skip.
	OnNonfinite string      `json:"on_nonfinite,omitempty"`
	History     []Extension `json:"history,omitempty"` // how Epochs and Steps came to be
}

// Skip as Spec.OnNonfinite: the step counts, and its samples are used; nothing of it is applied to the model.
const Skip = "skip"

// Options are a task's own part of the spec: texts, numbers and booleans as JSON, by name.
type Options map[string]json.RawMessage

// Extension records that a job was given more to do.
type Extension struct {
	Epochs int       `json:"epochs"` // before
	Steps  int64     `json:"steps"`  // before
	Step   int64     `json:"step"`   // the job's newest durable one then
	Time   time.Time `json:"time"`
}

// Plan returns how the spec cuts its data into steps and micro-batches.
func (s Spec) Plan() schedule.Plan {
	return schedule.Plan{Seed: s.Seed, Samples: s.Samples, GlobalBatch: s.GlobalBatch, MicroBatch: s.MicroBatch}
}

// TotalSteps is the schedule's length in optimizer updates.
func (s Spec) TotalSteps() int64 {
	if s.Steps > 0 {
		return s.Steps
	}
	return int64(s.Epochs) * s.Plan().StepsPerEpoch()
}

// EpochEnds says whether the state after `step` updates closes an epoch.
func (s Spec) EpochEnds(step int64) bool {
	return step > 0 && step%s.Plan().StepsPerEpoch() == 0
}

// Original is the spec as it was when the job was created: before all extensions.
func (s Spec) Original() Spec {
	if len(s.History) > 0 {
		s.Epochs, s.Steps, s.History = s.History[0].Epochs, s.History[0].Steps, nil
	}
	return s
}

// Continues says whether s is what an earlier spec of the same job became: the same, or longer by recorded extensions.
func (s Spec) Continues(earlier Spec) bool {
	same := func(epochs int, steps int64) bool { return epochs == earlier.Epochs && steps == earlier.Steps }
	return len(s.diffApartFromLength(earlier)) == 0 &&
		(same(s.Epochs, s.Steps) || slices.ContainsFunc(s.History,
			func(e Extension) bool { return same(e.Epochs, e.Steps) }))
}

// LongerThan says whether s differs from another spec in nothing but more steps.
func (s Spec) LongerThan(other Spec) bool {
	return len(s.diffApartFromLength(other)) == 0 && s.TotalSteps() > other.TotalSteps()
}

// Diff names the settings in which two specs differ, as "name: here X, there Y". An extension is no difference.
func (s Spec) Diff(theirs Spec) []string {
	return append(s.diffApartFromLength(theirs), s.diffOfLength(theirs)...)
}

func (s Spec) diffOfLength(theirs Spec) (diff []string) {
	return differing(diff, []setting{{"epochs", s.Epochs, theirs.Epochs}, {"steps", s.Steps, theirs.Steps}})
}

func (s Spec) diffApartFromLength(theirs Spec) (diff []string) {
	diff = differing(diff, []setting{{"task", s.Task, theirs.Task}})
	names := maps.Clone(s.Options)
	if names == nil {
		names = Options{}
	}
	maps.Copy(names, theirs.Options)
	for _, name := range slices.Sorted(maps.Keys(names)) {
		diff = append(diff, differingTexts(name, s.Options.Text(name), theirs.Options.Text(name))...)
	}
	// an option of the task says it already
	if slices.ContainsFunc(diff, func(d string) bool { return strings.HasPrefix(d, "samples:") }) {
		theirs.Samples = s.Samples
	}
	return differing(diff, []setting{
		{"data", s.Data, theirs.Data}, {"samples", s.Samples, theirs.Samples}, {"seed", s.Seed, theirs.Seed},
		{"global_batch", s.GlobalBatch, theirs.GlobalBatch}, {"micro_batch", s.MicroBatch, theirs.MicroBatch},
		{"on_nonfinite", cmp.Or(s.OnNonfinite, "stop"), cmp.Or(theirs.OnNonfinite, "stop")},
	})
}

// differingTexts names each setting in which two texts of the form "a=1;b=2" differ, else the texts as a whole.
func differingTexts(name, here, there string) []string {
	ours, theirs := settings(here), settings(there)
	if ours == nil || theirs == nil {
		return differing(nil, []setting{{name, here, there}})
	}
	names := maps.Clone(ours)
	maps.Copy(names, theirs)
	var all []setting
	for _, n := range slices.Sorted(maps.Keys(names)) {
		all = append(all, setting{name + " " + n, cmp.Or(ours[n], "none"), cmp.Or(theirs[n], "none")})
	}
	return differing(nil, all)
}

// settings reads "a=1;b=2", each name once and in order; nil: the text is of another form.
func settings(text string) map[string]string {
	all, last := map[string]string{}, ""
	for part := range strings.SplitSeq(text, ";") {
		name, value, ok := strings.Cut(part, "=")
		if !ok || name <= last || value == "" {
			return nil
		}
		all[name], last = value, name
	}
	return all
}

type setting struct {
	name        string
	here, there any
}

func differing(diff []string, settings []setting) []string {
	for _, s := range settings {
		if s.here != s.there {
			diff = append(diff, fmt.Sprintf("%s: here %v, there %v", s.name, s.here, s.there))
		}
	}
	return diff
}

// Text is an option's value for people: a text without its quotes, "none" for an option that is not there.
func (o Options) Text(name string) string {
	raw, ok := o[name]
	if !ok {
		return "none"
	}
	var text string
	if json.Unmarshal(raw, &text) == nil && len(raw) > 0 && raw[0] == '"' {
		return text
	}
	return string(bytes.TrimSpace(raw))
}

// Extended is the spec of a job that has committed `step` steps, with the length that longer asks for. It refuses one
// that is no longer than before.
func (s Spec) Extended(longer Spec, step int64, at time.Time) (Spec, error) {
	if len(s.History) >= maxHistory {
		return s, fmt.Errorf("it was extended %d times already, no more are recorded", maxHistory)
	}
	before := Extension{s.Epochs, s.Steps, step, at}
	now := s
	now.Epochs, now.Steps = longer.Epochs, longer.Steps
	if now.TotalSteps() <= s.TotalSteps() {
		return s, fmt.Errorf("it is %d steps long: --epochs %d --steps %d asks for %d, which is not more",
			s.TotalSteps(), longer.Epochs, longer.Steps, now.TotalSteps())
	}
	now.History = append(slices.Clone(s.History), before)
	return now, now.Validate()
}

// Bounds of the task's part of a spec, so that its record stays below what etcd and a manifest may hold.
const (
	maxOptions     = 200
	maxOptionsSize = 32 << 10 // bytes of all names and values
	maxHistory     = 100
)

func (o Options) validate() error {
	if len(o) > maxOptions {
		return fmt.Errorf("%d options: expected at most %d", len(o), maxOptions)
	}
	size := 0
	for _, name := range slices.Sorted(maps.Keys(o)) {
		raw := o[name]
		size += len(name) + len(raw)
		var value any
		if len(name) == 0 || len(name) > MaxName || json.Unmarshal(raw, &value) != nil {
			return fmt.Errorf("option %q: expected a name of at most %d characters and a value", clip(name), MaxName)
		}
		switch value.(type) {
		case string, bool, float64:
		default:
			return fmt.Errorf("option %q: expected a text, a number or a boolean", name)
		}
	}
	if size > maxOptionsSize {
		return fmt.Errorf("options of %d bytes: expected at most %d", size, maxOptionsSize)
	}
	return nil
}

func checkHistory(history []Extension) error {
	if len(history) > maxHistory {
		return fmt.Errorf("history of %d entries: expected at most %d", len(history), maxHistory)
	}
	for i, e := range history {
		if err := first(within("epochs", e.Epochs, 0, MaxStep), within("steps", e.Steps, 0, MaxStep),
			within("step", e.Step, 0, MaxStep)); err != nil {
			return fmt.Errorf("history, entry %d: %w", i, err)
		}
	}
	return nil
}

// Validate reports the first setting that cannot be trained, naming its flag. Every method of a valid spec returns
// without a panic and without overflow.
func (s Spec) Validate() error {
	if err := s.ValidateFlags(); err != nil {
		return err
	}
	if s.Samples < 1 {
		return errors.New("there is no sample to train on")
	}
	if err := s.Plan().Validate(); err != nil {
		return err
	}
	if most := MaxStep / s.Plan().StepsPerEpoch(); int64(s.Epochs) > most {
		return fmt.Errorf("--epochs %d: must be at most %d, as one has %d steps",
			s.Epochs, most, s.Plan().StepsPerEpoch())
	}
	return first(named("task", CheckName(s.Task)), text("data", s.Data, maxWord), s.Options.validate(),
		checkHistory(s.History))
}

// ReadSpec decodes a spec that a file holds, and validates it.
func ReadSpec(encoded []byte) (s Spec, err error) {
	if err := json.Unmarshal(encoded, &s); err != nil {
		return Spec{}, fmt.Errorf("spec: %w", err)
	}
	if err := s.Validate(); err != nil {
		return Spec{}, fmt.Errorf("spec: %w", err)
	}
	return s, nil
}

// ValidateFlags is the part of Validate that needs no data.
func (s Spec) ValidateFlags() error {
	switch {
	case s.GlobalBatch < 1 || s.GlobalBatch > MaxGlobalBatch:
		return fmt.Errorf("--global-batch %d: must be 1 to %d", s.GlobalBatch, MaxGlobalBatch)
	case s.MicroBatch < 1 || s.MicroBatch > MaxMicroBatch:
		return fmt.Errorf("--micro-batch %d: must be 1 to %d", s.MicroBatch, MaxMicroBatch)
	case s.GlobalBatch%s.MicroBatch != 0:
		return fmt.Errorf("--micro-batch %d does not divide --global-batch %d: choose a divisor, for example %d",
			s.MicroBatch, s.GlobalBatch, nearestDivisor(s.GlobalBatch, s.MicroBatch))
	case s.Steps < 0 || s.Steps > MaxStep:
		return fmt.Errorf("--steps %d: must be 0 (all epochs) to %d", s.Steps, int64(MaxStep))
	case s.Epochs < 0 || int64(s.Epochs) > MaxStep:
		return fmt.Errorf("--epochs %d: must be at most %d", s.Epochs, int64(MaxStep))
	case s.Steps == 0 && s.Epochs < 1:
		return fmt.Errorf("--epochs %d: must be at least 1", s.Epochs)
	case s.OnNonfinite != "" && s.OnNonfinite != Skip:
		return fmt.Errorf("--on-nonfinite %q: must be stop or skip", clip(s.OnNonfinite))
	}
	return nil
}

func nearestDivisor(n, near int) int {
	for d := min(near, n); d > 1; d-- {
		if n%d == 0 {
			return d
		}
	}
	return 1
}
