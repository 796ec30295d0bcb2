package options_test

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"time"

	"evenweave/internal/options"
)

type every struct {
	Text    string        `flag:"text" help:"a text"`
	Yes     bool          `flag:"yes" help:"a switch"`
	Count   int           `flag:"count" help:"how many"`
	Long    int64         `flag:"long-number" help:"signed"`
	Wide    uint64        `flag:"wide" spec:"width" help:"unsigned"`
	Rate    float64       `flag:"rate" help:"real"`
	Pause   time.Duration `flag:"pause" help:"how long"`
	Threads int           `flag:"threads" spec:"-" help:"of this process"`
	From    string        `flag:"from" spec:"-,create" help:"read when a job is created"`
	Hash    string        `spec:"hash"`
	Log     func()        `spec:"-"`
	Own     upper         `flag:"own" help:"of the task's own type"`
}

// upper is a type that reads and writes its text, in capital letters.
type upper struct{ text string }

func (u upper) MarshalText() ([]byte, error) {
	if strings.Contains(u.text, "!") {
		return nil, errors.New("an exclamation mark cannot be written")
	}
	return []byte(u.text), nil
}

func (u *upper) UnmarshalText(text []byte) error {
	if strings.ToUpper(string(text)) == "X" {
		return errors.New("X is no value")
	}
	u.text = strings.ToUpper(string(text))
	return nil
}

func of(t testing.TB, pointer any) *options.Set {
	t.Helper()
	s, err := options.Of(pointer)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Every value comes back from the text of its flag, and from the spec after a way through JSON.
func FuzzRoundTrip(f *testing.F) {
	f.Add("a \"b\"\n<&>", true, 1, int64(math.MinInt64), uint64(math.MaxUint64), 1e-300, 3)
	f.Add("", false, -1, int64(0), uint64(1<<53+1), math.Copysign(0, -1), 0)
	f.Add("\xff", false, 0, int64(0), uint64(0), math.Inf(1), 0)
	f.Fuzz(func(t *testing.T, text string, yes bool, count int, long int64, wide uint64, rate float64, threads int) {
		from := &every{Own: upper{"A B"}, Text: text, Yes: yes, Count: count, Long: long, Wide: wide, Rate: rate,
			Threads: threads,
			Pause:   time.Duration(long), Hash: "h"}
		source, err := options.Of(from)
		if math.IsNaN(rate) || math.IsInf(rate, 0) {
			if err == nil {
				t.Fatal("a default that is not finite is taken")
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		copied, loaded := &every{}, &every{Threads: threads}
		target := of(t, copied)
		for i, field := range source.Fields() {
			if err := target.Fields()[i].Set(field.String()); err != nil {
				if field.Flag == "text" {
					return // too long, or not UTF-8
				}
				t.Fatalf("%s: %v", field.Flag, err)
			}
		}
		if !reflect.DeepEqual(from, copied) {
			t.Fatalf("as flags: %+v became %+v", from, copied)
		}
		encoded, err := json.Marshal(source.Spec())
		if err != nil {
			t.Fatal(err)
		}
		var decoded map[string]json.RawMessage
		if err := json.Unmarshal(encoded, &decoded); err != nil {
			t.Fatal(err)
		}
		if err := of(t, loaded).Load(decoded); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(from, loaded) {
			t.Fatalf("through a spec: %+v became %+v", from, loaded)
		}
	})
}

// The spec holds what the tags say, and nothing that is each process's own.
func TestSpecHoldsWhatTheTagsSay(t *testing.T) {
	spec := of(t, &every{Text: "<a>", Threads: 4, From: "x"}).Spec()
	encoded, err := json.Marshal(spec)
	want := `{"count":0,"hash":"","long-number":0,"own":"","pause":"0s","rate":0,"text":"<a>","width":0,"yes":false}`
	plain := strings.NewReplacer(`\u003c`, "<", `\u003e`, ">").Replace(string(encoded))
	if err != nil || plain != want {
		t.Errorf("%s, %v", encoded, err)
	}
	if of(t, nil).Spec() == nil || len(of(t, nil).Spec()) != 0 {
		t.Error("a task without options has a spec")
	}
}

// Common is embedded by options of several tasks.
type Common struct {
	From string `flag:"from" spec:"-,create" help:"where it starts"`
	Hash string `spec:"hash"`
}

// Fields of a struct that the options embed are options too; a name that both have is refused.
func TestEmbeddedOptions(t *testing.T) {
	o := &struct {
		Rate float64 `flag:"rate" help:"real"`
		Common
	}{Common: Common{Hash: "ab"}}
	s := of(t, o)
	if spec := s.Spec(); len(s.Fields()) != 3 || len(spec) != 2 || string(spec["hash"]) != `"ab"` {
		t.Errorf("%d fields, spec %s", len(s.Fields()), spec)
	}
	if err := s.Fields()[1].Set("there"); err != nil || o.From != "there" {
		t.Errorf("from is %q, %v", o.From, err)
	}
	_, err := options.Of(&struct {
		From string `flag:"from" help:"twice"`
		Common
	}{})
	if err == nil || !strings.Contains(err.Error(), "From and From have the same name") {
		t.Errorf("%v", err)
	}
}

// Whatever a spec holds, loading it sets every value or says which name is wrong.
func FuzzLoad(f *testing.F) {
	f.Add(`{"count":0,"hash":"","long-number":0,"own":"","pause":"0s","rate":0,"text":"","width":0,"yes":false}`)
	f.Add(`{"count":1e3,"hash":null,"text":{}}`)
	f.Fuzz(func(t *testing.T, text string) {
		var spec map[string]json.RawMessage
		if json.Unmarshal([]byte(text), &spec) != nil {
			return
		}
		into := &every{}
		s := of(t, into)
		err := s.Load(spec)
		if err != nil {
			if len(err.Error()) > 1000 || !strings.Contains(err.Error(), "job's") {
				t.Errorf("%v", err)
			}
			return
		}
		if again := s.Spec(); len(again) != len(spec) {
			t.Errorf("%s became %v", text, again)
		}
	})
}

func TestWrongSpecsAreNamed(t *testing.T) {
	good := of(t, &every{}).Spec()
	for names, change := range map[string]func(map[string]json.RawMessage){
		`no option "rate"`: func(s map[string]json.RawMessage) { delete(s, "rate") },
		`"speed"`:          func(s map[string]json.RawMessage) { s["speed"] = json.RawMessage("1") },
		`"count"`:          func(s map[string]json.RawMessage) { s["count"] = json.RawMessage(`"1"`) },
		`"yes"`:            func(s map[string]json.RawMessage) { s["yes"] = json.RawMessage(`null`) },
		`"text"`:           func(s map[string]json.RawMessage) { s["text"] = json.RawMessage(`7`) },
		`"hash"`:           func(s map[string]json.RawMessage) { s["hash"] = json.RawMessage(`null`) },
	} {
		spec := map[string]json.RawMessage{}
		for name, value := range good {
			spec[name] = value
		}
		change(spec)
		if err := of(t, &every{}).Load(spec); err == nil || !strings.Contains(err.Error(), names) {
			t.Errorf("%v, want an error that names %s", err, names)
		}
	}
}

// What a programmer got wrong is said by the name of the field.
func TestBadTagsAreNamed(t *testing.T) {
	one := struct {
		A int `flag:"a"`
	}{}
	for says, pointer := range map[string]any{
		"pointer to a struct": one,
		"nil":                 (*struct{})(nil),
		"field A: type []int": &struct {
			A []int `flag:"a"`
		}{},
		"field B: it has tags": &struct {
			b int `flag:"b"`
		}{},
		"field C: it has neither": &struct{ C int }{},
		`flag:"Big"`: &struct {
			D int `flag:"Big"`
		}{},
		`flag:""`: &struct {
			E int `flag:""`
		}{},
		`spec:"a b"`: &struct {
			F int `flag:"f" spec:"a b"`
		}{},
		"fields G and H": &struct {
			G int `flag:"g"`
			H int `flag:"g"`
		}{},
		"fields I and J": &struct {
			I int `flag:"i"`
			J int `flag:"j" spec:"i"`
		}{},
		"field K: its default": &struct {
			K float64 `flag:"k"`
		}{math.NaN()},
		"field L: type uint8": &struct {
			L uint8 `flag:"l"`
		}{},
		"field M: its help": &struct {
			M int `flag:"m" help:"two\nlines"`
		}{},
	} {
		_, err := options.Of(pointer)
		if says == "nil" {
			says = "pointer to a struct"
		}
		if err == nil || !strings.Contains(strings.ToLower(err.Error()), strings.ToLower(says)) {
			t.Errorf("%T: %v, want an error that says %q", pointer, err, says)
		}
	}
}

// A text that is no value changes nothing.
func TestBadTextsChangeNothing(t *testing.T) {
	o := &every{Own: upper{"O"}, Text: "t", Yes: true, Count: 1, Long: 2, Wide: 3, Rate: 4, Pause: 5}
	before := *o
	for _, f := range of(t, o).Fields() {
		for _, text := range []string{"", "x", "1.5.2", "NaN", "Inf", "99999999999999999999", "-",
			strings.Repeat("a", options.MaxText+1), "\xff"} {
			if f.Type() == "float" && strings.HasPrefix(text, "9") {
				continue
			}
			if f.Flag == "own" && text == "x" {
				if err := f.Set("!"); err == nil {
					t.Error("a value that cannot be written is taken")
				}
			} else if f.Type() == "string" && len(text) <= options.MaxText && text != "\xff" {
				continue
			}
			if err := f.Set(text); err == nil || len(err.Error()) > 300 {
				t.Errorf("%s: %.20q is taken, or the error is too long: %v", f.Flag, text, err)
			}
		}
	}
	if !reflect.DeepEqual(*o, before) {
		t.Errorf("%+v became %+v", before, *o)
	}
}
