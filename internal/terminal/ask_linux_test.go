package terminal

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pair opens a terminal of the system's: what is written to one end is read from the other.
func pair(t *testing.T) (screen, tty *os.File) {
	t.Helper()
	screen, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = screen.Close() })
	var name string
	err = control(screen, func(fd int) error {
		n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
		name = fmt.Sprintf("/dev/pts/%d", n)
		if err == nil {
			err = unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if tty, err = os.OpenFile(name, os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return screen, tty
}

func modes(t *testing.T, tty *os.File) unix.Termios {
	t.Helper()
	var m *unix.Termios
	get := func(fd int) (err error) { m, err = unix.IoctlGetTermios(fd, unix.TCGETS); return err }
	if err := control(tty, get); err != nil {
		t.Fatal(err)
	}
	return *m
}

// What terminals answer to the question for their attributes; and a terminal is left as it was.
func TestATerminalIsAsked(t *testing.T) {
	for answer, want := range map[string]bool{
		"\x1b[?63;1;2;4;6;9;15;22c": true, "\x1b[?4c": true, "\x1b[?62;4c": true, "typed\x1b[A\x1b[?62;22;4ctoo": true,
		"\x1b[?1;2c": false, "\x1b[?62;c": false, "\x1b[?64;14;42;44c": false, "\x1b[?6c": false,
		"\x1b[4c\x1b[?62;22c": false,
	} {
		screen, tty := pair(t)
		before := modes(t, tty)
		asked := make(chan string, 1)
		go func() {
			question := make([]byte, 3)
			_, _ = io.ReadFull(screen, question)
			half := len(answer) / 2 // it comes in pieces
			_, _ = screen.WriteString(answer[:half])
			_, _ = screen.WriteString(answer[half:])
			asked <- string(question)
		}()
		if got := ShowsSixel(tty, time.Minute); got != want {
			t.Errorf("%q: %v", answer, got)
		}
		if q := <-asked; q != "\x1b[c" {
			t.Errorf("%q was asked", q)
		}
		if modes(t, tty) != before {
			t.Errorf("%q: the terminal is left in another mode", answer)
		}
	}
}

// A terminal that does not answer, or answers without an end, is waited for a while; what is no terminal is not asked.
func TestAQuestionEnds(t *testing.T) {
	screen, tty := pair(t)
	before := modes(t, tty)
	if ShowsSixel(tty, 20*time.Millisecond) || modes(t, tty) != before {
		t.Error("a silent terminal shows sixels, or is left in another mode")
	}
	screen, tty = pair(t)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for endless := make([]byte, 512); ; {
			if _, err := screen.Write(endless); err != nil {
				return
			}
		}
	}()
	if ShowsSixel(tty, time.Minute) {
		t.Error("zeros are an answer")
	}
	_ = screen.SetWriteDeadline(time.Now())
	<-ended
	file, err := os.Create(t.TempDir() + "/file")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	for _, f := range []*os.File{file, r} {
		if ShowsSixel(f, time.Minute) {
			t.Errorf("%s shows sixels", f.Name())
		}
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("%v: a file was asked", err)
	}
	if s := SizeOf(file); s != (Size{80, 640}) {
		t.Errorf("a file is %v", s)
	}
}

// TestASignalFindsTheTerminalAsItWas: a question does not swallow Ctrl-C, and no signal ends the process while the
// terminal is raw.
func TestASignalFindsTheTerminalAsItWas(t *testing.T) {
	for _, c := range []struct {
		name string
		send func(screen *os.File) error
	}{
		{"Ctrl-C", func(screen *os.File) error { _, err := screen.Write([]byte{interrupt}); return err }},
		{"kill", func(*os.File) error { return unix.Kill(os.Getpid(), unix.SIGINT) }},
	} {
		name, send := c.name, c.send
		screen, tty := pair(t)
		before := modes(t, tty)
		// Never stopped: a signal is sent once more after the question, and would end this process if it came late.
		got := make(chan os.Signal, 2)
		signal.Notify(got, os.Interrupt)
		asked := make(chan error, 1)
		go func() { // once the question is there, the terminal is raw
			_, err := screen.Read(make([]byte, 16))
			if err == nil {
				err = send(screen)
			}
			asked <- err
		}()
		if ShowsSixel(tty, time.Second) || modes(t, tty) != before {
			t.Errorf("%s: the terminal shows sixels, or is left in another mode", name)
		}
		if err := <-asked; err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		select {
		case <-got:
		case <-time.After(time.Minute):
			t.Errorf("%s: no signal has come", name)
		}
	}
}

func TestSizeOf(t *testing.T) {
	for set, want := range map[unix.Winsize]Size{{Row: 24, Col: 100, Xpixel: 1000, Ypixel: 480}: {100, 1000},
		{Row: 24, Col: 100}: {100, 800}, {}: {80, 640}} {
		_, tty := pair(t)
		resize := func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &set) }
		if err := control(tty, resize); err != nil {
			t.Fatal(err)
		}
		if got := SizeOf(tty); got != want {
			t.Errorf("%+v: %v, want %v", set, got, want)
		}
	}
}
