package progress

import (
	"bytes"
	"errors"
	"io"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// log is an observer that keeps all records.
type log struct{ records []Record }

func (l *log) Observe(r Record) { l.records = append(l.records, r) }

func TestTranscripts(t *testing.T) {
	var asJSON, asPlain bytes.Buffer
	both := Multi(NewJSON(&asJSON), NewPlain(&asPlain, time.UTC))
	for _, r := range story() {
		both.Observe(r)
	}
	golden(t, "story.txt", asPlain.Bytes())
	golden(t, "story.jsonl", asJSON.Bytes())
}

// A skipped step is counted, and its loss is not among those that are shown.
func TestSkippedStepsAreShown(t *testing.T) {
	var out bytes.Buffer
	p := NewPlain(&out, time.UTC)
	p.Observe(Record{noon, Start{Steps: 3}})
	for i, s := range []Step{{Step: 1, Loss: 2}, {Step: 2, Loss: 1e9, Skipped: "the loss", Skips: 1},
		{Step: 3, Loss: 4, Skips: 1}} {
		p.Observe(Record{noon.Add(time.Duration(i) * time.Minute), s})
	}
	p.Observe(Record{noon, Done{Step: 3, Skipped: 1, Complete: true}})
	for _, want := range []string{"step 3/3  loss 3.0000", "1 skipped", "1 step skipped: not finite"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in:\n%s", want, out.String())
		}
	}
}

func TestPlainIsQuietButNotSilent(t *testing.T) {
	for _, test := range []struct {
		each time.Duration
		want int // lines of 469 steps
	}{
		{100 * time.Millisecond, 11}, // each tenth of an epoch, and the first and last step
		{5 * time.Second, 240},       // every 10 s
		{time.Millisecond, 2},        // the first and the last
		{time.Minute, 469},           // every step
	} {
		var out bytes.Buffer
		p := NewPlain(&out, time.UTC)
		p.Observe(Record{noon, Start{Steps: 469, StepsPerEpoch: 469}})
		out.Reset()
		for s := 1; s <= 469; s++ {
			p.Observe(Record{noon.Add(time.Duration(s) * test.each), Step{Step: s}})
		}
		if got := strings.Count(out.String(), "\n"); got < test.want-test.want/50 || got > test.want+test.want/50 {
			t.Errorf("steps of %s: %d lines, want about %d", test.each, got, test.want)
		}
	}
}

func TestAClosedOutputStopsNothing(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	defer write.Close()
	asJSON, asPlain := NewJSON(write), NewPlain(write, time.UTC)
	bar := NewBar(write, func() int { return 80 }, time.UTC)
	for _, r := range story() {
		Multi(asJSON, asPlain, bar).Observe(r)
	}
	if err := errors.Join(asJSON.out.err, asPlain.out.err); err == nil {
		t.Error("no error is kept")
	}
	if bar.Close() == nil {
		t.Error("the bar keeps no error")
	}
}

func TestJSONReportsWhatItCannotHold(t *testing.T) {
	var out bytes.Buffer
	NewJSON(&out).Observe(Record{noon, Step{Loss: math.NaN()}})
	r, err := Decode(out.Bytes())
	if _, is := r.Event.(Warning); err != nil || !is {
		t.Errorf("got %s, %v", out.Bytes(), err)
	}
}

func TestRelay(t *testing.T) {
	var pipe bytes.Buffer
	want := story()
	for _, r := range want {
		NewJSON(&pipe).Observe(r)
	}
	var got log
	if err := Relay(byteByByte{&pipe}, &got); err != nil {
		t.Fatal(err)
	}
	for i := range want {
		if _, unknown := want[i].Event.(Unknown); !unknown && !reflect.DeepEqual(got.records[i], want[i]) {
			t.Errorf("record %d: got %+v, want %+v", i, got.records[i], want[i])
		}
	}
	if len(got.records) != len(want) {
		t.Errorf("%d records, want %d", len(got.records), len(want))
	}
}

func TestRelayOfDamage(t *testing.T) {
	step, _ := Encode(Record{noon, Step{Step: 1}})
	var got log
	in := "W0000 a library\n\n" + string(step) + strings.Repeat("y", 3*relayLine) + "\n" + string(step) +
		string(step[:20])
	if err := Relay(strings.NewReader(in), &got); err != nil {
		t.Fatal(err)
	}
	var kinds []string
	for _, r := range got.records {
		kinds = append(kinds, r.Event.Kind())
	}
	if want := "warning step warning step warning"; strings.Join(kinds, " ") != want {
		t.Errorf("got %s, want %s", kinds, want)
	}
	broken := errors.New("broken")
	if err := Relay(io.MultiReader(bytes.NewReader(step), failing{broken}), &got); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
}

type byteByByte struct{ r io.Reader }

func (o byteByByte) Read(p []byte) (int, error) { return o.r.Read(p[:min(1, len(p))]) }

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestObserversMayBeShared(t *testing.T) {
	metrics, err := OpenMetrics(t.Context(), filepath.Join(t.TempDir(), "metrics.jsonl"), ignore)
	if err != nil {
		t.Fatal(err)
	}
	bar := NewBar(io.Discard, func() int { return 80 }, time.UTC)
	var out bytes.Buffer
	all := Multi(NewJSON(&out), NewPlain(io.Discard, time.UTC), bar, metrics)
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for _, r := range story() {
				all.Observe(r)
			}
		})
	}
	group.Wait()
	if err := errors.Join(bar.Close(), metrics.Close()); err != nil {
		t.Error(err)
	}
	metrics.Observe(step(1000)) // closed: nothing happens
	var got log
	if err := Relay(&out, &got); err != nil || len(got.records) != 4*len(story()) {
		t.Errorf("%d records, %v: lines are mixed up", len(got.records), err)
	}
}
