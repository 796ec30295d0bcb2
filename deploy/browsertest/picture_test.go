package browsertest

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// picture looks at the page from the top of one element to the bottom of another, in a window of this width: nothing
// may be wider. It keeps the picture where EVENWEAVE_TEST_PICTURES names a directory.
func (b *browser) picture(name string, width int64, scheme, from, to string) {
	b.t.Helper()
	b.window(width, 1100, scheme)
	b.text("(scrollTo(0, 0), draw())")
	b.text("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
	var part struct{ Top, Bottom float64 }
	measured := b.text(fmt.Sprintf(`JSON.stringify({
		top: Math.floor(document.querySelector(%q).getBoundingClientRect().top),
		bottom: Math.ceil(document.querySelector(%q).getBoundingClientRect().bottom)})`, from, to))
	if err := json.Unmarshal([]byte(measured), &part); err != nil {
		b.t.Fatal(err)
	}
	beyond, margin := true, 8.0
	shot, err := chromedp.Call(b.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{
		CaptureBeyondViewport: &beyond,
		Clip: &page.Viewport{Y: max(0, part.Top-margin), Width: float64(width), Scale: 1,
			Height: part.Bottom + margin - max(0, part.Top-margin)}})
	if err != nil {
		b.t.Fatal(err)
	}
	if wide, _ := strconv.Atoi(b.text("document.documentElement.scrollWidth")); int64(wide) > width {
		b.t.Errorf("%s: the page is %d pixels wide in a window of %d", name, wide, width)
	}
	if dir := os.Getenv("EVENWEAVE_TEST_PICTURES"); dir != "" {
		b.keep(filepath.Join(dir, name), shot.Data)
	}
}

func (b *browser) keep(path string, shot []byte) {
	b.t.Helper()
	full, err := png.Decode(bytes.NewReader(shot))
	if err != nil {
		b.t.Fatal(err)
	}
	var small bytes.Buffer
	if err := (&png.Encoder{CompressionLevel: png.BestCompression}).Encode(&small, paletted(full)); err != nil {
		b.t.Fatal(err)
	}
	if small.Len() > 150<<10 {
		b.t.Errorf("%s has %d bytes, at most 150 KiB", path, small.Len())
	}
	if err := os.WriteFile(path, small.Bytes(), 0o644); err != nil {
		b.t.Fatal(err)
	}
}

// paletted is a picture in its 256 most frequent colours, which makes its file a third as large.
func paletted(m image.Image) *image.Paletted {
	r, counts := m.Bounds(), map[color.RGBA]int{}
	at := func(x, y int) color.RGBA { return color.RGBAModel.Convert(m.At(x, y)).(color.RGBA) }
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			counts[at(x, y)]++
		}
	}
	often := func(a, b color.RGBA) int { return cmp.Compare(counts[b], counts[a]) }
	colors := slices.SortedFunc(maps.Keys(counts), often)
	var few color.Palette
	for _, c := range colors[:min(len(colors), 256)] {
		few = append(few, c)
	}
	out, nearest := image.NewPaletted(r, few), map[color.RGBA]uint8{}
	for _, c := range colors {
		nearest[c] = uint8(few.Index(c))
	}
	for y := r.Min.Y; y < r.Max.Y; y++ {
		for x := r.Min.X; x < r.Max.X; x++ {
			out.SetColorIndex(x, y, nearest[at(x, y)])
		}
	}
	return out
}
