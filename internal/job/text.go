package job

import (
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits of what is printed of a text that came from elsewhere.
const (
	maxShown     = 256 // characters of a field
	maxShownLine = 2048
	maxLines     = 64
)

// Clean is text from elsewhere as it may be printed or written down: at most 256 printable characters on one line. It
// has no control characters (C0 and C1, so no escape sequence), no invisible format characters (so none that change the
// writing direction), and no bytes that are not UTF-8. White space of any kind and length becomes one space. A text
// that is cut ends in an ellipsis.
func Clean(text string) string {
	var shown []rune
	space := false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			space = len(shown) > 0
			continue
		case !printable(r):
			continue
		}
		if space {
			shown, space = append(shown, ' '), false
		}
		if shown = append(shown, r); len(shown) > maxShown {
			return strings.TrimRight(string(shown[:maxShown-1]), " ") + "…"
		}
	}
	return string(shown)
}

// Lines is a text of our own that may quote others, as it may be printed: at most 64 lines of at most 2,048 printable
// characters. Spaces stay as they are, any other white space within a line becomes one; what is cut ends in an
// ellipsis.
func Lines(text string) []string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > maxLines {
		lines = append(lines[:maxLines-1], "…")
	}
	for i, line := range lines {
		shown := 0
		lines[i] = strings.Map(func(r rune) rune {
			if unicode.IsSpace(r) {
				r = ' '
			}
			if !printable(r) {
				return -1
			}
			switch shown++; {
			case shown > maxShownLine:
				return -1
			case shown == maxShownLine:
				return '…'
			}
			return r
		}, line)
	}
	return lines
}

// Escape writes what a terminal might obey in a line of JSON, or of a log, as \u and four digits: JSON leaves C1 and
// format characters as they are. What a reader decodes is the same.
func Escape(line []byte) []byte {
	var out []byte
	from := 0
	for i := 0; i < len(line); {
		r, n := rune(line[i]), 1
		if r >= utf8.RuneSelf {
			r, n = utf8.DecodeRune(line[i:])
		}
		if r != '\n' && !printable(r) {
			out = append(out, line[from:i]...)
			if r > 0xffff {
				high, low := utf16.EncodeRune(r)
				out = appendEscape(appendEscape(out, high), low)
			} else {
				out = appendEscape(out, r)
			}
			from = i + n
		}
		i += n
	}
	if from == 0 {
		return line
	}
	return append(out, line[from:]...)
}

func appendEscape(out []byte, r rune) []byte {
	const digits = "0123456789abcdef"
	return append(out, '\\', 'u', digits[r>>12&15], digits[r>>8&15], digits[r>>4&15], digits[r&15])
}

func printable(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
