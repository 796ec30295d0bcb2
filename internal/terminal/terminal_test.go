package terminal

import (
	"bytes"
	"encoding/base64"
	"image"
	"image/color"
	"image/png"
	"regexp"
	"strings"
	"testing"
)

func TestDetect(t *testing.T) {
	for variables, want := range map[string]Kind{
		"": None, "TERM=dumb COLORTERM=truecolor": None, "TERM=vt100": None,
		"TERM=xterm-kitty": Kitty, "TERM=xterm-256color KITTY_WINDOW_ID=1": Kitty,
		"TERM=xterm TERM_PROGRAM=ghostty":                       Kitty,
		"TERM=xterm TERM_PROGRAM=iTerm.app COLORTERM=truecolor": ITerm2, "TERM=xterm TERM_PROGRAM=WezTerm": ITerm2,
		"TERM=xterm LC_TERMINAL=iTerm2":                           ITerm2,
		"TERM=screen LC_TERMINAL=iTerm2 COLORTERM=truecolor":      Blocks,
		"TERM=xterm-kitty TMUX=/tmp/t,1,0":                        None,
		"TERM=tmux-256color KITTY_WINDOW_ID=1 COLORTERM=24bit":    Blocks,
		"TERM=xterm-256color COLORTERM=truecolor":                 Blocks,
		"TERM=xterm-256color TERM_PROGRAM=Apple_Terminal":         None,
		"TERM=xterm-256color TERM_PROGRAM=vscode COLORTERM=24bit": Blocks,
	} {
		all := map[string]string{}
		for _, v := range strings.Fields(variables) {
			name, value, _ := strings.Cut(v, "=")
			all[name] = value
		}
		if got := Detect(func(name string) string { return all[name] }); got != want {
			t.Errorf("%s: %s, want %s", variables, got, want)
		}
	}
}

// gradient is w x h pixels, each of a color of its own.
func gradient(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			m.Set(x, y, color.RGBA{uint8(x * 7), uint8(y * 5), uint8(x * y), 255})
		}
	}
	return m
}

// What a terminal gets, put together as it does, is the picture.
func TestProtocolsCarryThePicture(t *testing.T) {
	want := gradient(300, 200)
	var asKitty, asITerm2 bytes.Buffer
	if err := Show(&asKitty, want, Kitty, Size{80, 640}); err != nil {
		t.Fatal(err)
	}
	pieces := regexp.MustCompile(`\x1b_G([^;]*);([^\x1b]*)\x1b\\`).FindAllStringSubmatch(asKitty.String(), -1)
	var text strings.Builder
	for i, p := range pieces {
		if last := i == len(pieces)-1; len(p[2]) > 4096 || strings.Contains(p[1], "m=0") != last ||
			strings.Contains(p[1], "a=T,f=100") != (i == 0) {
			t.Errorf("piece %d of %d: %s, %d letters", i, len(pieces), p[1], len(p[2]))
		}
		text.WriteString(p[2])
	}
	if len(pieces) < 2 {
		t.Error("the picture of this test fits into one piece")
	}
	if err := Show(&asITerm2, want, ITerm2, Size{80, 640}); err != nil {
		t.Fatal(err)
	}
	file := regexp.MustCompile(`^\x1b\]1337;File=inline=1[^:]*:([^\a]*)\a\n$`).FindStringSubmatch(asITerm2.String())
	if file == nil {
		t.Fatalf("%.80q", asITerm2.String())
	}
	for _, text := range []string{text.String(), file[1]} {
		data, err := base64.StdEncoding.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		got, err := png.Decode(bytes.NewReader(data))
		if err != nil || got.At(299, 199) != want.At(299, 199) || got.Bounds() != want.Rect {
			t.Errorf("%v: another picture", err)
		}
	}
}

func TestBlocksFitTheTerminal(t *testing.T) {
	for _, size := range []image.Point{{1, 1}, {40, 3}, {200, 100}, {7, 500}} {
		var out bytes.Buffer
		if err := Show(&out, gradient(size.X, size.Y), Blocks, Size{Columns: 50}); err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
		w := min(size.X, 50)
		if h := max(1, size.Y*w/size.X); len(lines) != (h+1)/2 {
			t.Errorf("%v: %d lines", size, len(lines))
		}
		for _, l := range lines {
			if strings.Count(l, "▀") != w || !strings.HasSuffix(l, "\x1b[0m") {
				t.Errorf("%v: a line of %d blocks: %q", size, strings.Count(l, "▀"), l)
			}
		}
	}
	var out bytes.Buffer
	if err := Show(&out, gradient(2, 2), Blocks, Size{Columns: 50}); err != nil || !strings.Contains(out.String(),
		"\x1b[38;2;7;0;0;48;2;7;5;1m▀") {
		t.Errorf("%v: the colors are others: %q", err, out.String())
	}
	out.Reset()
	if err := Show(&out, gradient(2, 2), None, Size{Columns: 50}); err != nil || out.Len() > 0 {
		t.Errorf("%v: %q for a terminal that shows nothing", err, out.String())
	}
}
