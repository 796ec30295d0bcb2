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

// Ended is how the last run in a directory ended. It is DIR/ended.json. If no run is live and the file is missing, the
// run was killed or its machine stopped.
type Ended struct {
	Time time.Time `json:"time"`
	Code int       `json:"code"` // 0: done; 130: stopped, can be resumed; others: failed
	// Reason says why it failed.
	Reason string `json:"reason,omitempty"`
}

// HowEnded reads how the last run in dir ended. The error is fs.ErrNotExist if nothing is recorded.
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

// begin removes the record of the previous run's end.
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
