package gomlx

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"evenweave"
	"evenweave/gomlx/backend"
)

// Params are hyperparameters by name, as GoMLX's scopes have them: for Config.Params, and for a task's options, where
// they are a flag whose text changes some of them:
//
//	type options struct {
//		Params gomlx.Params `flag:"set" help:"hyperparameters"`
//	}
//	o := &options{gomlx.Params{"learning_rate": 0.001, "dropout_rate": 0.0}}
//
// `--set "learning_rate=0.01;/encoder/dropout_rate=0.1"` names hyperparameters that are there, perhaps below a scope;
// a value is of the type of the one that it replaces: string, bool, int, int64, float32 or float64. The job's spec
// holds all of them, so a job is not resumed with others, by the flag or by a program with other defaults.
type Params map[string]any

// MarshalText implements encoding.TextMarshaler: all settings, by name.
func (p Params) MarshalText() ([]byte, error) {
	var all []string
	for _, name := range slices.Sorted(maps.Keys(p)) {
		text := fmt.Sprint(p[name])
		if strings.ContainsAny(name+text, ";=") || strings.TrimSpace(text) != text {
			return nil, fmt.Errorf("hyperparameter %q is %q: a setting cannot hold ; or =, nor spaces at its ends",
				name, text)
		}
		all = append(all, name+"="+text)
	}
	return []byte(strings.Join(all, ";")), nil
}

// UnmarshalText implements encoding.TextUnmarshaler: it changes what the text sets. After an error all is as before.
func (p *Params) UnmarshalText(text []byte) error {
	params := maps.Clone(*p)
	for setting := range strings.SplitSeq(string(text), ";") {
		if setting = strings.TrimSpace(setting); setting == "" {
			continue
		}
		path, text, ok := strings.Cut(setting, "=")
		if !ok {
			return fmt.Errorf("%.80q: expected name=value", setting)
		}
		path = strings.TrimSpace(path)
		was, known := params[path]
		if !known {
			was, known = params[model.BasePath(path)]
		}
		if !known {
			return fmt.Errorf("%.80q: there is no hyperparameter %.80q; %s", setting, model.BasePath(path),
				nearest(model.BasePath(path), slices.Sorted(maps.Keys(params))))
		}
		value, err := parse(was, strings.TrimSpace(text))
		if err != nil {
			return fmt.Errorf("%.80q: %w", setting, err)
		}
		params[path] = value
	}
	*p = params
	return nil
}

// nearest names what may have been meant: up to three names, the most like it first; all, where none is like it.
func nearest(name string, known []string) string {
	near := slices.DeleteFunc(slices.Clone(known), func(k string) bool { return unlike(name, k) > 0.6 })
	slices.SortStableFunc(near, func(a, b string) int { return cmp.Compare(unlike(name, a), unlike(name, b)) })
	if len(near) == 0 {
		return "there are " + strings.Join(known, ", ")
	}
	return "the nearest are " + strings.Join(near[:min(len(near), 3)], ", ")
}

// unlike is 0 for equal names and 1 for those that share no two letters that follow each other.
func unlike(a, b string) float64 {
	shared, pairs := 0, map[string]int{}
	for i := range len(a) - 1 {
		pairs[a[i:i+2]]++
	}
	for i := range len(b) - 1 {
		if pairs[b[i:i+2]]--; pairs[b[i:i+2]] >= 0 {
			shared++
		}
	}
	return 1 - 2*float64(shared)/float64(max(len(a)+len(b)-2, 1))
}

// parse gives text the type of a value.
func parse(like any, text string) (value any, err error) {
	switch like.(type) {
	case string:
		return text, nil
	case bool:
		value, err = strconv.ParseBool(text)
	case int:
		value, err = strconv.Atoi(text)
	case int64:
		value, err = strconv.ParseInt(text, 10, 64)
	case float64:
		value, err = finite(text, 64)
	case float32:
		var wide float64
		wide, err = finite(text, 32)
		value = float32(wide)
	default:
		return nil, fmt.Errorf("the default is a %T, which a setting cannot change", like)
	}
	if err != nil {
		return nil, fmt.Errorf("expected a value of type %T", like)
	}
	return value, nil
}

func finite(text string, bits int) (float64, error) {
	x, err := strconv.ParseFloat(text, bits)
	if math.IsNaN(x) || math.IsInf(x, 0) {
		return 0, errors.New("not finite")
	}
	return x, err
}

// Backends are for Task.Backends: GoMLX's, by their names for --backend, the default first. No name: "auto", "xla",
// "xla:cuda" and "go". "auto" is XLA, or what this machine has instead of it, with the reason.
func Backends(names ...string) evenweave.Backends { return backend.Choice(names...) }
