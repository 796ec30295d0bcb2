package gomlx

import (
	"maps"
	"strings"
	"testing"
)

func TestParams(t *testing.T) {
	defaults := map[string]any{"rate": 0.1, "layers": 2, "name": "adam", "on": false, "narrow": float32(1),
		"wide": int64(1)}
	got, err := ParseParams(defaults, " rate=0.01; /encoder/rate = 0.5;layers=3;name=sgd;on=true;narrow=2;wide=-5;")
	want := map[string]any{"rate": 0.01, "/encoder/rate": 0.5, "layers": 3, "name": "sgd", "on": true,
		"narrow": float32(2), "wide": int64(-5)}
	if err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	if defaults["rate"] != 0.1 {
		t.Error("the defaults have changed")
	}
	for settings, says := range map[string]string{
		"rates=1": `"rates"; there are layers, name`, "rate": "expected name=value", "layers=1.5": "expected a int",
		"on=perhaps": "expected a bool", "rate=fast": "expected a float64",
	} {
		if _, err := ParseParams(defaults, settings); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v, expected an error with %q", settings, err, says)
		}
	}
}
