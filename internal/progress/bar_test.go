package progress

import (
	"bytes"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"
)

// screen is the part of a terminal that the bar uses: line ends, carriage returns, one line up, clear to the end.
type screen struct {
	mu   sync.Mutex
	rows []string
	row  int
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	text := strings.ReplaceAll(string(p), erase, "\x00")
	for _, c := range text {
		for s.row >= len(s.rows) {
			s.rows = append(s.rows, "")
		}
		switch c {
		case 0:
			s.row--
			s.rows = append(s.rows[:s.row], "")
		case '\n':
			s.row++
		default:
			s.rows[s.row] += string(c)
		}
	}
	return len(p), nil
}

func (s *screen) text() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.rows, "\n")
}

func TestBarTranscript(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var transcript bytes.Buffer
		s := &screen{}
		bar := NewBar(s, func() int { return 80 }, time.UTC)
		clock := noon
		for _, r := range story() {
			if stall := r.Time.Sub(clock); stall > 3*time.Second {
				time.Sleep(stall - time.Millisecond) // fake time
				synctest.Wait()
				transcript.WriteString("--- " + r.Time.Format("15:04:05.000") + " before " + r.Event.Kind() + "\n" +
					s.text() + "\n")
				time.Sleep(time.Millisecond)
			} else {
				time.Sleep(stall)
			}
			clock = r.Time
			bar.Observe(r)
			if e, ok := r.Event.(Step); ok && e.Step%50 != 20 {
				continue
			}
			transcript.WriteString("--- " + r.Event.Kind() + "\n" + s.text() + "\n")
		}
		bar.Observe(Record{clock, Step{Step: 1}})
		if err := bar.Close(); err != nil {
			t.Error(err)
		}
		if err := bar.Close(); err != nil {
			t.Error("closed twice:", err)
		}
		bar.Observe(Record{clock, Notice{"not to be seen"}})
		transcript.WriteString("--- closed\n" + s.text() + "\n")
		golden(t, "bar.txt", lastRows(transcript.String()))
	})
}

// lastRows keeps the last six rows of every screen; otherwise the transcript would mostly repeat itself.
func lastRows(transcript string) []byte {
	var out bytes.Buffer
	for i, shot := range strings.Split(transcript, "--- ")[1:] {
		rows := strings.Split(strings.TrimSuffix(shot, "\n"), "\n")
		if from := len(rows) - 6; i > 0 && from > 1 {
			rows = append(rows[:1], rows[from:]...)
		}
		out.WriteString("--- " + strings.Join(rows, "\n") + "\n")
	}
	return out.Bytes()
}

func TestBarFitsItsTerminal(t *testing.T) {
	records := story()
	for width := 0; width < 200; width += 3 {
		b := &Bar{width: func() int { return width }, now: func() time.Time { return noon }, zone: time.UTC}
		for _, r := range records {
			b.view.apply(r)
			b.seen = noon
			if b.view.start.Steps == 0 {
				continue
			}
			var out bytes.Buffer
			b.out.w, b.up = &out, false
			b.draw(noon, nil)
			for line := range strings.SplitSeq(out.String(), "\n") {
				if n := utf8.RuneCountInString(line); n >= max(width, minWidth) {
					t.Fatalf("%d columns of %d: %q", n, width, line)
				}
			}
		}
	}
}

func TestBarOfAJobOfUnknownLength(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &screen{}
		bar := NewBar(s, func() int { return 100 }, time.UTC)
		defer bar.Close()
		bar.Observe(Record{noon, Notice{"early"}}) // before any Start
		bar.Observe(Record{noon, Step{Step: 9, Epoch: 2, Workers: 3}})
		if got := s.text(); !strings.Contains(got, "early\n") || !strings.Contains(got, "step 9 ") {
			t.Errorf("got %q", got)
		}
	})
}
