// Package terminal shows pictures in terminals: by the protocols of kitty and iTerm2, which others speak too, as sixels
// where the terminal says that it has them, and elsewhere as half blocks of two colors.
package terminal

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"io"
	"strings"

	"golang.org/x/image/draw"
)

// Kind says how a terminal shows pictures.
type Kind string

// Kinds. None: it does not.
const (
	None   Kind = "none"
	Kitty  Kind = "kitty"
	ITerm2 Kind = "iterm2"
	Sixel  Kind = "sixel"
	Blocks Kind = "blocks"
)

// Kinds are all, in words.
func Kinds() []Kind { return []Kind{Kitty, ITerm2, Sixel, Blocks, None} }

// Detect says what a terminal can show, by the variables that terminals set. Inside tmux and screen, which pass no
// pictures of kitty's and iTerm2's on, half blocks are left. Sixel has no variable: terminals are asked.
func Detect(variable func(string) string) Kind {
	term, program := variable("TERM"), variable("TERM_PROGRAM")
	inside := variable("TMUX") != "" || strings.HasPrefix(term, "screen") || strings.HasPrefix(term, "tmux")
	switch {
	case term == "" || term == "dumb":
		return None
	case inside:
	case term == "xterm-kitty", variable("KITTY_WINDOW_ID") != "", term == "xterm-ghostty", program == "ghostty":
		return Kitty
	case program == "iTerm.app", program == "WezTerm", program == "mintty", variable("LC_TERMINAL") == "iTerm2":
		return ITerm2
	}
	if c := variable("COLORTERM"); c == "truecolor" || c == "24bit" {
		return Blocks
	}
	return None
}

// Show writes a picture in a terminal of this kind, at most as wide as the terminal.
func Show(w io.Writer, m image.Image, k Kind, size Size) error {
	var out bytes.Buffer
	var err error
	switch k {
	case Kitty:
		err = kitty(&out, fit(m, size.Pixels))
	case ITerm2: // makes it fit by itself
		err = iTerm2(&out, m)
	case Sixel:
		sixel(&out, fit(m, size.Pixels))
	case Blocks:
		blocks(&out, m, size.Columns)
	}
	if err == nil {
		_, err = out.WriteTo(w)
	}
	return err
}

// fit makes a picture smaller that is wider than there is room.
func fit(m image.Image, width int) image.Image {
	b := m.Bounds()
	if width = max(1, width); b.Dx() <= width {
		return m
	}
	small := image.NewRGBA(image.Rect(0, 0, width, max(1, b.Dy()*width/b.Dx())))
	draw.BiLinear.Scale(small, small.Rect, m, b, draw.Over, nil)
	return small
}

// kitty sends a PNG in pieces of 4096 letters: https://sw.kovidgoyal.net/kitty/graphics-protocol.
func kitty(out *bytes.Buffer, m image.Image) error {
	const piece = 4096
	text, err := encode(m)
	if err != nil {
		return err
	}
	for first := true; first || text != ""; first = false {
		n, more := min(piece, len(text)), 0
		if n < len(text) {
			more = 1
		}
		control := fmt.Sprintf("m=%d", more)
		if first {
			control = "a=T,f=100," + control
		}
		fmt.Fprintf(out, "\x1b_G%s;%s\x1b\\", control, text[:n])
		text = text[n:]
	}
	out.WriteByte('\n')
	return nil
}

// iTerm2 sends a PNG as a file that is shown: https://iterm2.com/documentation-images.html.
func iTerm2(out *bytes.Buffer, m image.Image) error {
	text, err := encode(m)
	if err == nil {
		fmt.Fprintf(out, "\x1b]1337;File=inline=1;preserveAspectRatio=1:%s\a\n", text)
	}
	return err
}

func encode(m image.Image) (string, error) {
	var b bytes.Buffer
	err := png.Encode(&b, m)
	return base64.StdEncoding.EncodeToString(b.Bytes()), err
}

// blocks draws two pixels in each cell: the upper half in the color of letters, the lower in that behind them.
func blocks(out *bytes.Buffer, m image.Image, columns int) {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	if columns = max(1, columns); w > columns {
		w, h = columns, max(1, h*columns/w)
	}
	small := image.NewRGBA(image.Rect(0, 0, w, h+h%2))
	draw.BiLinear.Scale(small, image.Rect(0, 0, w, h), m, b, draw.Over, nil)
	for y := 0; y < h; y += 2 {
		var last [2]color.RGBA
		for x := range w {
			now := [2]color.RGBA{small.RGBAAt(x, y), small.RGBAAt(x, y+1)}
			if x == 0 || now != last {
				u, l := now[0], now[1]
				fmt.Fprintf(out, "\x1b[38;2;%d;%d;%d;48;2;%d;%d;%dm", u.R, u.G, u.B, l.R, l.G, l.B)
			}
			out.WriteString("▀")
			last = now
		}
		out.WriteString("\x1b[0m\n")
	}
}
