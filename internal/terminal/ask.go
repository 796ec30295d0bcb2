package terminal

import (
	"bytes"
	"errors"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// Size is how wide a terminal is, in letters and in pixels.
type Size struct{ Columns, Pixels int }

const pixelsOfLetter = 8 // where the terminal does not say: small, so that pictures fit

// SizeOf is the size of a terminal; of 80 columns where f is none.
func SizeOf(f *os.File) Size {
	s := Size{Columns: 80}
	_ = control(f, func(fd int) error {
		size, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
		if err == nil && size.Col > 0 {
			s = Size{Columns: int(size.Col), Pixels: int(size.Xpixel)}
		}
		return err
	})
	if s.Pixels == 0 {
		s.Pixels = pixelsOfLetter * s.Columns
	}
	return s
}

// Own opens the terminal that this process belongs to. It fails in the background, where asking would stop the process.
func Own() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	err = control(tty, func(fd int) error {
		group, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
		if err == nil && group != unix.Getpgrp() {
			err = errors.New("another process has the terminal")
		}
		return err
	})
	if err != nil {
		return nil, errors.Join(err, tty.Close())
	}
	return tty, nil
}

// attributes is the answer to DA1 (https://vt100.net/docs/vt510-rm/DA1.html): numbers of what the terminal can.
var attributes = regexp.MustCompile(`\x1b\[\?([0-9;]*)c`)

const interrupt = 3 // what Ctrl-C sends while the terminal is raw

const mostAnswer = 4096 // bytes, which include what a person typed meanwhile

// ShowsSixel asks a terminal what it can show, and waits for the answer for a limited time. It says no for a terminal
// that is silent, or that cannot be waited for.
func ShowsSixel(tty *os.File, wait time.Duration) bool {
	if tty.SetDeadline(time.Now().Add(wait)) != nil {
		return false
	}
	// A signal to end waits until the terminal is as it was.
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, os.Interrupt, unix.SIGTERM, unix.SIGHUP, unix.SIGQUIT)
	defer func() {
		signal.Stop(ended)
		select {
		case s := <-ended:
			_ = unix.Kill(os.Getpid(), s.(unix.Signal))
		default:
		}
	}()
	var before *term.State
	if control(tty, func(fd int) (err error) { before, err = term.MakeRaw(fd); return err }) != nil {
		return false
	}
	defer func() { _ = control(tty, func(fd int) error { return term.Restore(fd, before) }) }()
	if _, err := io.WriteString(tty, "\x1b[c"); err != nil {
		return false
	}
	var answer []byte
	for part := make([]byte, 64); len(answer) < mostAnswer; {
		n, err := tty.Read(part)
		answer = append(answer, part[:n]...)
		if bytes.IndexByte(part[:n], interrupt) >= 0 {
			select {
			case ended <- os.Interrupt:
			default: // another signal has come
			}
			return false
		}
		if found := attributes.FindSubmatch(answer); found != nil {
			return strings.Contains(";"+string(found[1])+";", ";4;")
		}
		if err != nil || n == 0 {
			return false
		}
	}
	return false
}

// control calls f with the descriptor of a file, which File.Fd would make one whose deadlines do nothing.
func control(file *os.File, f func(fd int) error) error {
	raw, err := file.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	err = raw.Control(func(fd uintptr) { failed = f(int(fd)) })
	return errors.Join(err, failed)
}
