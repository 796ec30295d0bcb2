package local

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"evenweave/internal/regular"
)

const endedFile = "ended.json"

// Ended is how the last run in a directory ended. It lies in DIR/ended.json while no run goes on there; without it the
// run was killed, or its machine stopped.
type Ended struct {
	Time time.Time `json:"time"`
	Code int       `json:"code"` // 0: done; 130: stopped, to be gone on with; others: failed
	// Reason says why it failed.
	Reason string `json:"reason,omitempty"`
}

// HowEnded reads it. The error is one of fs.ErrNotExist where nothing is recorded.
func HowEnded(dir string) (e Ended, err error) {
	path := filepath.Join(dir, endedFile)
	b, err := regular.Read(path, maxRecord)
	if err != nil {
		return e, err
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return e, fmt.Errorf("%s: %w", path, err)
	}
	return e, nil
}

// begin removes what the run before has left.
func (d directory) begin() { _ = os.Remove(filepath.Join(d.path, endedFile)) }

// end records the outcome of Run, if this is still its directory.
func (d directory) end(outcome error) error {
	e := Ended{Time: time.Now()}
	var exit *Exit
	switch {
	case errors.As(outcome, &exit):
		e.Code, e.Reason = exit.Code, exit.Tail
	case outcome != nil:
		e.Code, e.Reason = 1, outcome.Error()
	}
	if d.lost() != nil {
		return nil
	}
	return d.write(endedFile, e)
}
