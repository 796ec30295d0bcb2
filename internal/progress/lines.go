package progress

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// output writes nothing more after its first error: a closed pipe or a full disk must not stop training. Its owner's
// lock guards it.
type output struct {
	w   io.Writer
	err error
}

func (o *output) write(b []byte) {
	if o.err == nil && len(b) > 0 {
		_, o.err = o.w.Write(b)
	}
}

// JSON writes every record as a line of JSON.
type JSON struct {
	mu  sync.Mutex
	out output
}

// NewJSON returns an observer that writes to w, one Write a line.
func NewJSON(w io.Writer) *JSON { return &JSON{out: output{w: w}} }

// Observe writes r. A record that JSON cannot hold becomes a warning.
func (j *JSON) Observe(r Record) {
	line, err := Encode(r)
	if err != nil {
		line, _ = Encode(Record{r.Time, Warning{err.Error()}}) // a Warning always encodes
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.out.write(line)
}

const (
	plainEvery = 10 * time.Second // the longest time between lines about steps
	plainLeast = time.Second      // the shortest
)

// Plain writes lines for people, for logs and wherever there is no terminal: one for each tenth of an epoch, or after
// 10 s, and one for every other event.
type Plain struct {
	mu    sync.Mutex
	out   output
	zone  *time.Location
	view  view
	shown time.Time // of the last step line
	tenth int
}

// NewPlain returns an observer that writes to w, with times in zone.
func NewPlain(w io.Writer, zone *time.Location) *Plain {
	return &Plain{out: output{w: w}, zone: zone}
}

// Observe writes the lines of r, if it has any.
func (p *Plain) Observe(r Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	first := p.view.step.Step == 0
	p.view.apply(r)
	if s, ok := r.Event.(Step); ok {
		tenth := 0
		if n := p.view.start.StepsPerEpoch; n > 0 {
			tenth = 10 * s.Step / n
		}
		quiet := r.Time.Sub(p.shown)
		due := quiet >= plainEvery || quiet < 0 || tenth != p.tenth && quiet >= plainLeast
		if !first && !due && s.Step != p.view.start.Steps {
			return
		}
		p.shown, p.tenth = r.Time, tenth
	}
	p.out.write(stamped(r.Time.In(p.zone), p.view.describe(r.Event)))
}

// stamped returns lines as they are printed: the time before the first, the others below it.
func stamped(at time.Time, lines []string) []byte {
	var b bytes.Buffer
	prefix := at.Format("15:04:05 ")
	for _, l := range lines {
		b.WriteString(prefix + l + "\n")
		prefix = strings.Repeat(" ", len(prefix))
	}
	return b.Bytes()
}

// Multi returns an observer that passes every record to all of them, in order.
func Multi(observers ...Observer) Observer { return multi(observers) }

type multi []Observer

func (m multi) Observe(r Record) {
	for _, o := range m {
		o.Observe(r)
	}
}

// relayLine bounds a line that Relay holds in memory.
const relayLine = 1 << 20

// Relay decodes records from lines of JSON and passes them to the observer until r ends, which is no error. It turns a
// line that is no record (a library's or a crash's output) into a [Warning] that quotes it, with the time of the record
// before it.
func Relay(r io.Reader, to Observer) error {
	in := bufio.NewReaderSize(r, relayLine)
	var last time.Time
	for {
		line, err := in.ReadSlice('\n')
		if long := errors.Is(err, bufio.ErrBufferFull); long || len(bytes.TrimSpace(line)) > 0 {
			record, bad := Decode(line)
			if bad != nil {
				record = Record{last, Warning{bad.Error()}}
			}
			last = record.Time
			to.Observe(record)
			for long && errors.Is(err, bufio.ErrBufferFull) {
				_, err = in.ReadSlice('\n') // drop the rest of the overlong line
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("progress: read events: %w", err)
		}
	}
}
