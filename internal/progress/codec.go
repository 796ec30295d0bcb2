package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"time"

	"evenweave/internal/job"
)

// timeLayout is RFC 3339 with all nine digits, so that lines line up and the times of one zone sort as text.
const timeLayout = "2006-01-02T15:04:05.000000000Z07:00"

// Encode returns r as one line of JSON, ending in a newline, that begins with the fields "event" and "time" (UTC). It
// fails on an event that JSON cannot hold, such as a loss that is not finite. It escapes control characters.
func Encode(r Record) ([]byte, error) {
	if r.Event == nil {
		return nil, fmt.Errorf("progress: a record without an event, at %s", r.Time)
	}
	if u, ok := r.Event.(Unknown); ok {
		return append(job.Escape(bytes.TrimRight(u.Line, "\r\n")), '\n'), nil
	}
	body, err := json.Marshal(r.Event)
	if err != nil {
		return nil, fmt.Errorf("progress: encode %s event: %w", r.Event.Kind(), err)
	}
	line := make([]byte, 0, len(body)+80)
	line = fmt.Appendf(line, `{"event":%q,"time":"%s"`, r.Event.Kind(), r.Time.UTC().Format(timeLayout))
	if len(body) > len("{}") {
		line = append(line, ',')
	}
	return append(append(line, job.Escape(body[1:])...), '\n'), nil
}

// Decode reads a record from one line, with or without its newline. An unknown kind gives an [Unknown], and unknown
// fields are skipped, so that versions can read each other; a line that is not a record is an error that quotes it.
func Decode(line []byte) (Record, error) {
	line = bytes.TrimSpace(line)
	var head struct {
		Event string    `json:"event"`
		Time  time.Time `json:"time"`
	}
	if err := json.Unmarshal(line, &head); err != nil {
		return Record{}, damaged(line, err.Error())
	}
	if head.Event == "" || head.Time.IsZero() {
		return Record{}, damaged(line, `it needs the fields "event" and "time"`)
	}
	decode, known := decoders[head.Event]
	if !known {
		return Record{head.Time, Unknown{head.Event, bytes.Clone(line)}}, nil
	}
	event, err := decode(line)
	if err != nil {
		return Record{}, damaged(line, err.Error())
	}
	return Record{head.Time, event}, nil
}

// decoders has every kind but Unknown; it is never written to.
var decoders = map[string]func([]byte) (Event, error){
	Start{}.Kind():        decodeAs[Start],
	Step{}.Kind():         decodeAs[Step],
	World{}.Kind():        decodeAs[World],
	Checkpoint{}.Kind():   decodeAs[Checkpoint],
	Evaluation{}.Kind():   decodeAs[Evaluation],
	MemberChange{}.Kind(): decodeAs[MemberChange],
	Notice{}.Kind():       decodeAs[Notice],
	Warning{}.Kind():      decodeAs[Warning],
	Failure{}.Kind():      decodeAs[Failure],
	Done{}.Kind():         decodeAs[Done],
	Page{}.Kind():         decodeAs[Page],
}

func decodeAs[E Event](line []byte) (Event, error) {
	var e E
	err := json.Unmarshal(line, &e)
	return e, err
}

func damaged(line []byte, why string) error {
	const most = 80
	more := ""
	if len(line) > most {
		line, more = line[:most], "..."
	}
	return fmt.Errorf("progress: not an event line: %s: %q%s", why, line, more)
}
