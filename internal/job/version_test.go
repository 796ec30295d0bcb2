package job

import (
	"encoding/json"
	"strings"
	"testing"
)

// Each record has a version; one of a later version is refused by name, not misunderstood, and one without is of the
// first.
func TestRecordsOfALaterVersionAreRefused(t *testing.T) {
	for _, record := range []any{&Job{}, &Member{}, &World{}, &Leader{}, &Done{}} {
		b, err := json.Marshal(record)
		if err != nil {
			t.Fatal(err)
		}
		const now, first, later = `{"version":2,`, `{"version":1,`, `{"version":3,`
		if !strings.HasPrefix(string(b), now) {
			t.Errorf("%T is written as %s", record, b)
		}
		with := func(version string) error {
			return json.Unmarshal([]byte(strings.Replace(string(b), now, version, 1)), record)
		}
		for _, good := range []string{now, first, "{"} {
			if err := with(good); err != nil {
				t.Errorf("%T %s: %v", record, good, err)
			}
		}
		if err := with(later); err == nil || !strings.Contains(err.Error(), "version 3") ||
			!strings.Contains(err.Error(), "newer") {
			t.Errorf("%T of version 3: %v", record, err)
		}
		for _, bad := range []string{`{"version":0,`, `{"version":-1,`, `{"version":"1",`, `{"version":null,`,
			`{"version":1e99,`} {
			if with(bad) == nil {
				t.Errorf("%T %s is accepted", record, bad)
			}
		}
	}
}
