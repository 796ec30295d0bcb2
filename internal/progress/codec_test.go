package progress

import (
	"bytes"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"evenweave"
)

func TestEveryEventSurvivesItsLine(t *testing.T) {
	kinds := map[string]bool{}
	for _, want := range story() {
		line, err := Encode(want)
		if err != nil {
			t.Fatal(err)
		}
		if head := `{"event":"` + want.Event.Kind() + `","time":"2026-11-23T`; !bytes.HasPrefix(line, []byte(head)) {
			t.Errorf("line does not begin with event and time: %s", line)
		}
		if bytes.IndexByte(line, '\n') != len(line)-1 {
			t.Errorf("not one line: %q", line)
		}
		got, err := Decode(line)
		if err != nil {
			t.Fatal(err)
		}
		if _, unknown := want.Event.(Unknown); unknown {
			want.Time = got.Time // an unknown event's line stays as it is
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v\nwant %+v", got, want)
		}
		kinds[want.Event.Kind()] = true
	}
	for kind := range decoders {
		if !kinds[kind] {
			t.Errorf("the story has no %s", kind)
		}
	}
}

func TestDecodeFromAnotherVersion(t *testing.T) {
	r, err := Decode([]byte(`{"later":[1],"time":"2026-11-23T13:00:00+01:00","step":7,"event":"step"}`))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(r.Event, Step{Step: 7}) || !r.Time.Equal(noon.Truncate(time.Second)) {
		t.Errorf("got %+v", r)
	}
}

func TestDecodeNamesDamage(t *testing.T) {
	for _, line := range []string{"", "{", "null", "[]", "7", `{"event":"step"}`, `{"time":"2026-11-23T12:00:00Z"}`,
		`{"event":"step","time":"yesterday"}`, `{"event":"step","time":"2026-11-23T12:00:00Z","step":"x"}`,
		`{"event":"step","time":"2026-11-23T12:00:00Z","step":1`, "panic: runtime error", "\x00\x00\x00"} {
		if r, err := Decode([]byte(line)); err == nil {
			t.Errorf("%q gave %+v", line, r)
		}
	}
	_, err := Decode([]byte(strings.Repeat("x", 5000)))
	if err == nil || len(err.Error()) > 300 {
		t.Errorf("a long line is not cut: %v", err)
	}
}

func TestEncodeRefusesWhatJSONCannotHold(t *testing.T) {
	for _, e := range []Event{nil, Step{Loss: math.NaN()},
		Evaluation{Figures: []evenweave.Figure{{Value: math.Inf(1)}}},
		Step{Metrics: []Metric{{"mae", math.NaN()}}}} {
		if line, err := Encode(Record{noon, e}); err == nil {
			t.Errorf("%+v gave %s", e, line)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, r := range story() {
		line, _ := Encode(r)
		f.Add(line)
		f.Add(line[:len(line)/2])
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		first, err := Decode(line)
		if err != nil {
			return
		}
		again, err := Encode(first)
		if err != nil {
			t.Skip(err) // for example a year of five digits
		}
		if _, unknown := first.Event.(Unknown); unknown {
			return
		}
		second, err := Decode(again)
		if err != nil {
			t.Fatalf("%s became %s: %v", line, again, err)
		}
		if third, _ := Encode(second); !bytes.Equal(again, third) {
			t.Errorf("%s became %s", again, third)
		}
		var v view
		v.apply(first)
		for _, l := range v.describe(first.Event) {
			if strings.ContainsAny(l, "\x1b\r\n") {
				t.Errorf("%q moves the cursor", l)
			}
		}
	})
}
