package progress

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
	"unicode/utf8"
)

const (
	barRedraw = 100 * time.Millisecond // the shortest time between drawings
	barTick   = 500 * time.Millisecond // the longest, so that a stall shows
	minWidth  = 20                     // a narrower terminal counts as this wide
)

// Bar shows a job on a terminal. Its two lines at the bottom, the state of training and a bar with the time left, are
// redrawn in place; above them it prints a line for every other event. Close it before printing anything else.
type Bar struct {
	mu     sync.Mutex
	out    output
	width  func() int
	zone   *time.Location
	now    func() time.Time
	view   view
	opened time.Time // when Start came
	seen   time.Time // when the last step came
	drawn  time.Time
	up     bool // the two lines are on the screen
	closed bool

	stop    chan struct{}
	stopped chan struct{}
}

// NewBar returns an observer that draws on w, a terminal that understands ANSI escapes, with times in zone. width
// returns its number of columns, before each drawing. The Bar owns a goroutine until Close.
func NewBar(w io.Writer, width func() int, zone *time.Location) *Bar {
	b := &Bar{
		out: output{w: w}, width: width, zone: zone, now: time.Now,
		stop: make(chan struct{}), stopped: make(chan struct{}),
	}
	go b.tick()
	return b
}

// tick redraws while no events come.
func (b *Bar) tick() {
	defer close(b.stopped)
	ticker := time.NewTicker(barTick)
	defer ticker.Stop()
	for {
		select {
		case <-b.stop:
			return
		case <-ticker.C:
			b.mu.Lock()
			if now := b.now(); b.up && now.Sub(b.drawn) >= barTick {
				b.draw(now, nil)
			}
			b.mu.Unlock()
		}
	}
}

// Observe draws r. After Close it does nothing.
func (b *Bar) Observe(r Record) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		return
	}
	now := b.now()
	b.view.apply(r)
	switch r.Event.(type) {
	case Step:
		b.seen = now
		if now.Sub(b.drawn) >= barRedraw || !b.up {
			b.draw(now, nil)
		}
		return
	case Start:
		b.opened, b.seen = now, time.Time{}
	case Done:
		b.draw(now, nil) // the bar stays, above the result
		text := stamped(r.Time.In(b.zone), b.view.describe(r.Event))
		if b.up {
			text = append([]byte("\n"), text...)
		}
		b.out.write(text)
		b.up, b.view = false, view{}
		return
	}
	b.draw(now, stamped(r.Time.In(b.zone), b.view.describe(r.Event)))
}

// Close removes the two lines from the screen and stops drawing. It may be called again.
func (b *Bar) Close() error {
	b.mu.Lock()
	if !b.closed {
		b.closed = true
		close(b.stop)
		if b.up {
			b.out.write([]byte(erase))
			b.up = false
		}
	}
	err := b.out.err
	b.mu.Unlock()
	<-b.stopped
	return err
}

// erase moves to the start of the upper line and clears from there on.
const erase = "\r\x1b[1A\x1b[J"

// draw prints above and redraws the two lines below it, in one Write so that nothing flickers.
func (b *Bar) draw(now time.Time, above []byte) {
	var frame bytes.Buffer
	if b.up {
		frame.WriteString(erase)
	}
	frame.Write(above)
	b.up = b.view.start.Steps > 0 || b.view.step.Step > 0
	if b.up {
		width := max(minWidth, b.width()) - 1 // a full line would wrap on some terminals
		status, rest := b.text(now)
		frame.WriteString(fit(status, width) + "\n")
		frame.WriteString(barLine(b.view.position(), b.view.start.Steps, width, rest))
	}
	b.drawn = now
	b.out.write(frame.Bytes())
}

// text returns the upper line's fields, and the text right of the bar.
func (b *Bar) text(now time.Time) (status []string, rest string) {
	if b.view.step.Step == 0 {
		world := "waiting for workers"
		if n := b.view.workers(); n > 0 {
			world = count(n, "worker")
		}
		return []string{"starting", world}, "waited " + short(now.Sub(b.opened))
	}
	quiet := now.Sub(b.seen)
	switch {
	case b.view.ended != "":
		rest = b.view.ended
	case b.view.step.Step == b.view.start.Steps:
		rest = "trained"
	case quiet > b.view.meter.stallAfter():
		rest = "no step for " + short(quiet)
	default:
		rest = b.view.eta()
	}
	return b.view.status(), rest
}

// fit joins as many fields as width columns hold.
func fit(fields []string, width int) string {
	for n := len(fields); n > 0; n-- {
		if line := strings.Join(fields[:n], "  "); utf8.RuneCountInString(line) <= width {
			return line
		}
	}
	return ""
}

// barLine is a bar of step in steps with rest beside it, width columns wide.
func barLine(step, steps, width int, rest string) string {
	if steps <= 0 {
		return rest
	}
	const around = len(" 100% || ")
	if utf8.RuneCountInString(rest) > width-around-5 {
		rest = ""
	}
	step = min(max(step, 0), steps)
	cells := width - around - utf8.RuneCountInString(rest)
	full := int(int64(cells) * int64(step) / int64(steps))
	return strings.TrimRight(fmt.Sprintf("%4d%% |%s%s| %s", int64(step)*100/int64(steps), strings.Repeat("█", full),
		strings.Repeat(" ", cells-full), rest), " ")
}
