package job

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// maxShown is how many characters of a text that came from elsewhere are printed.
const maxShown = 256

// Clean is text from elsewhere as it may be printed or written down: at most 256 printable characters on one line. It has no control characters
// (C0 and C1, so no escape sequence), no invisible format characters (so none that change the writing direction), and no bytes that are not
// UTF-8. White space of any kind and length becomes one space. A text that is cut ends in an ellipsis.
func Clean(text string) string {
	var shown []rune
	space := false
	for _, r := range text {
		switch {
		case unicode.IsSpace(r):
			space = len(shown) > 0
			continue
		case r == utf8.RuneError || !unicode.IsPrint(r):
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
