package gomlx

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gomlx/gomlx/ml/model"

	"evenweave"
	"evenweave/gomlx/backend"
)

// ParseParams returns hyperparameters with the settings of a command line in place of defaults, for Config.Params:
//
//	params, err := gomlx.ParseParams(map[string]any{"learning_rate": 0.001, "dropout_rate": 0.0}, options.Set)
//
// Settings are written "learning_rate=0.01;/encoder/dropout_rate=0.1": each names one of the defaults, perhaps below a
// scope, and its value is of the default's type, one of string, bool, int, int64, float32 and float64.
func ParseParams(defaults map[string]any, settings string) (map[string]any, error) {
	params := maps.Clone(defaults)
	for setting := range strings.SplitSeq(settings, ";") {
		if setting = strings.TrimSpace(setting); setting == "" {
			continue
		}
		path, text, ok := strings.Cut(setting, "=")
		if !ok {
			return nil, fmt.Errorf("%q: expected name=value", setting)
		}
		path = strings.TrimSpace(path)
		was, known := defaults[model.BasePath(path)]
		if !known {
			return nil, fmt.Errorf("%q: there is no hyperparameter %q; there are %s", setting, model.BasePath(path),
				strings.Join(slices.Sorted(maps.Keys(defaults)), ", "))
		}
		value, err := parse(was, strings.TrimSpace(text))
		if err != nil {
			return nil, fmt.Errorf("%q: %w", setting, err)
		}
		params[path] = value
	}
	return params, nil
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
		value, err = strconv.ParseFloat(text, 64)
	case float32:
		var wide float64
		wide, err = strconv.ParseFloat(text, 32)
		value = float32(wide)
	default:
		return nil, fmt.Errorf("the default is a %T, which a setting cannot change", like)
	}
	if err != nil {
		return nil, fmt.Errorf("expected a %T", like)
	}
	return value, nil
}

// Resolve is for Task.Backend: it says which backend "auto" stands for on this machine, with the reason where it is not
// XLA. "xla", "xla:cuda" and "go" are tried and kept.
func Resolve(name string) (resolved, notice string, err error) { return backend.Resolve(name) }

// Versions is for Task.Versions: it says which GoMLX and which plug-ins of XLA there are.
func Versions() []evenweave.Version { return backend.Versions() }
