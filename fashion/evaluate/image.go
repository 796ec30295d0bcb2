package evaluate

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"io"
	"slices"

	"golang.org/x/image/draw"

	"evenweave/dataset/picture"
)

// ImageSide is the width and height of the images of Fashion-MNIST.
const ImageSide = 28

const (
	longestSide = 1024 // larger pictures are scaled down first
	least       = 13   // 5% of white: closer than this to the background is background, of any picture
	most        = 64   // and farther than this from it is none, however uneven it is
	nearlyBlack = 32   // no photograph has a background that dark, the set's pictures have
)

// Polarity says which is lighter, the object or its background. Auto: what the picture shows.
type Polarity string

// Polarities.
const (
	Auto        Polarity = "auto"
	DarkOnLight Polarity = "dark-on-light"
	LightOnDark Polarity = "light-on-dark"
)

// Reading is a picture in the form of Fashion-MNIST, and how it became that.
type Reading struct {
	Pixels      []byte   `json:"-"` // ImageSide x ImageSide gray bytes, row by row, a bright object on black
	Format      string   `json:"format"`
	Width       int      `json:"width"` // upright, as Height
	Height      int      `json:"height"`
	Orientation int      `json:"orientation"` // EXIF's; 1: stored upright
	Polarity    Polarity `json:"polarity"`
	Background  string   `json:"background"` // "#rrggbb"
	Cut         [4]int   `json:"cut"`        // left, top, right, bottom of the object
	OnBlack     bool     `json:"on_black"`   // what is transparent became black: on white nothing was visible
}

// String says how the picture was read, for people.
func (r Reading) String() string {
	how := map[Polarity]string{DarkOnLight: "dark on light, inverted", LightOnDark: "light on dark"}[r.Polarity]
	text := fmt.Sprintf("%s of %d x %d, background %s, read as %s", r.Format, r.Width, r.Height, r.Background, how)
	if r.Orientation != 1 {
		text += ", turned upright"
	}
	if r.OnBlack {
		text += ", what is transparent made black"
	}
	if r.Cut != [4]int{0, 0, r.Width, r.Height} {
		text += fmt.Sprintf(", cut to %d x %d", r.Cut[2]-r.Cut[0], r.Cut[3]-r.Cut[1])
	}
	return text
}

// Decode reads a PNG, JPEG, WebP or GIF (its first frame) and brings it into the form of Fashion-MNIST, by the steps by
// which that set was made:
//
//   - the picture is turned upright, as the camera's EXIF says, and what is transparent becomes white;
//   - the background is found: the median color of the edge, and how uneven it is there. All that is about as far from
//     that color becomes black;
//   - the rest becomes gray, and is inverted where it is darker than its background, as photographs are;
//   - the object is cut out, scaled until its longer side fits and its brightest part is white, and centred on black.
//
// A picture of ImageSide x ImageSide pixels on black or white is only inverted if need be, so one of the set itself
// comes out unchanged. A picture on which nothing differs from its background is an error. Files and pictures that are
// too large are refused before decoding, which takes at most 512 MiB: see picture.Decode.
func Decode(ctx context.Context, r io.Reader, polarity Polarity) (Reading, error) {
	data, err := io.ReadAll(io.LimitReader(r, picture.MaxBytes+1))
	if err != nil {
		return Reading{}, fmt.Errorf("read image: %w", err)
	}
	decoded, err := picture.Decode(ctx, data)
	if err != nil {
		return Reading{}, err
	}
	width, height := decoded.Bounds().Dx(), decoded.Bounds().Dy()
	decoded = picture.Shrunk(decoded) // what is decoded is garbage from here on
	out := Reading{Format: picture.Format(data), Orientation: picture.Orientation(data), Polarity: polarity,
		Width: width, Height: height}
	if out.Orientation >= 5 {
		out.Width, out.Height = out.Height, out.Width
	}
	upright := func(paper color.Color) *image.RGBA { return picture.Upright(flatten(decoded, paper), out.Orientation) }
	s := newScene(upright(color.White))
	if s.empty() {
		s, out.OnBlack = newScene(upright(color.Black)), true
	}
	if s.empty() {
		return Reading{}, fmt.Errorf("nothing is visible on this %s of %d x %d: all of it has about one color, %s",
			out.Format, out.Width, out.Height, hex(s.background))
	}
	out.Background = hex(s.background)
	if polarity == Auto {
		out.Polarity = s.polarity()
	}
	out.Cut, out.Pixels = s.render(out.Polarity == DarkOnLight)
	for i := range out.Cut { // of the scaled picture
		out.Cut[i] = out.Cut[i] * max(out.Width, out.Height) / max(s.Rect.Dx(), s.Rect.Dy())
	}
	return out, nil
}

func hex(c color.RGBA) string { return fmt.Sprintf("#%02x%02x%02x", c.R, c.G, c.B) }

// flatten is the picture on paper of a color, no side longer than longestSide, at the origin.
func flatten(m image.Image, paper color.Color) *image.RGBA {
	b := m.Bounds()
	w, h := b.Dx(), b.Dy()
	if longer := max(w, h); longer > longestSide {
		w, h = max(1, w*longestSide/longer), max(1, h*longestSide/longer)
	}
	flat := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(flat, flat.Rect, image.NewUniform(paper), image.Point{}, draw.Src)
	if w == b.Dx() && h == b.Dy() {
		draw.Draw(flat, flat.Rect, m, b.Min, draw.Over)
	} else {
		draw.BiLinear.Scale(flat, flat.Rect, m, b, draw.Over, nil)
	}
	return flat
}

// scene is a picture in which object and background are separated.
type scene struct {
	*image.RGBA
	background color.RGBA
	object     []bool // by pixel
	count      int    // of the object's pixels
	brighter   int    // how many of them are brighter than the background
}

func newScene(m *image.RGBA) *scene {
	s := &scene{RGBA: m, object: make([]bool, m.Rect.Dx()*m.Rect.Dy())}
	edge := s.edge()
	channel := func(of func(color.RGBA) uint8) uint8 {
		all := make([]uint8, len(edge))
		for i, c := range edge {
			all[i] = of(c)
		}
		slices.Sort(all)
		lower, upper := all[(len(all)-1)/2], all[len(all)/2]
		if lower > least && upper >= 255-least { // two corners of a small negative
			return upper
		}
		return lower
	}
	s.background = color.RGBA{channel(func(c color.RGBA) uint8 { return c.R }),
		channel(func(c color.RGBA) uint8 { return c.G }), channel(func(c color.RGBA) uint8 { return c.B }), 255}
	uneven := make([]int, len(edge))
	for i, c := range edge {
		uneven[i] = distance(c, s.background)
	}
	slices.Sort(uneven)
	tolerance := min(most, max(least, 3*uneven[len(uneven)*6/10])) // the object may touch two fifths of the edge
	for y := range m.Rect.Dy() {
		for x := range m.Rect.Dx() {
			if c := m.RGBAAt(x, y); distance(c, s.background) > tolerance {
				s.object[y*m.Rect.Dx()+x] = true
			}
		}
	}
	if tolerance > least {
		s.object = withoutSpecks(s.object, m.Rect.Dx(), m.Rect.Dy())
	}
	for i, is := range s.object {
		if is {
			s.count++
			if luma(m.RGBAAt(i%m.Rect.Dx(), i/m.Rect.Dx())) > luma(s.background) {
				s.brighter++
			}
		}
	}
	return s
}

// small says that the picture has the set's size: what touches its edge then is the object more often than not.
func (s *scene) small() bool { return s.Rect.Dx() == ImageSide && s.Rect.Dy() == ImageSide }

// edge are the pixels that show the background: those around the picture, of a small one its corners.
func (s *scene) edge() []color.RGBA {
	right, bottom := s.Rect.Dx()-1, s.Rect.Dy()-1
	if s.small() {
		return []color.RGBA{s.RGBAAt(0, 0), s.RGBAAt(right, 0), s.RGBAAt(0, bottom), s.RGBAAt(right, bottom)}
	}
	var all []color.RGBA
	for x := range right + 1 {
		all = append(all, s.RGBAAt(x, 0), s.RGBAAt(x, bottom))
	}
	for y := range bottom + 1 {
		all = append(all, s.RGBAAt(0, y), s.RGBAAt(right, y))
	}
	return all
}

// withoutSpecks keeps what most of the pixels around it agree with.
func withoutSpecks(object []bool, w, h int) []bool {
	const reach = 3
	sums := make([]int, (w+1)*(h+1)) // of all pixels above and to the left
	for y := range h {
		for x := range w {
			n := sums[y*(w+1)+x+1] + sums[(y+1)*(w+1)+x] - sums[y*(w+1)+x]
			if object[y*w+x] {
				n++
			}
			sums[(y+1)*(w+1)+x+1] = n
		}
	}
	out := make([]bool, len(object))
	for y := range h {
		for x := range w {
			x0, x1, y0, y1 := max(0, x-reach), min(w, x+reach+1), max(0, y-reach), min(h, y+reach+1)
			n := sums[y1*(w+1)+x1] - sums[y1*(w+1)+x0] - sums[y0*(w+1)+x1] + sums[y0*(w+1)+x0]
			out[y*w+x] = 2*n > (x1-x0)*(y1-y0)
		}
	}
	return out
}

func (s *scene) empty() bool { return s.count == 0 }

// polarity looks at the object's pixels. A picture of the set, or a drawing like it, is brighter than its background in
// nearly all of them. What has both brighter and darker ones is a photograph, and those the set has inverted.
func (s *scene) polarity() Polarity {
	background := luma(s.background)
	switch dark := background <= 127; {
	case background <= nearlyBlack, dark && s.small(), dark && 10*s.brighter >= 9*s.count, s.brighter == s.count:
		return LightOnDark
	}
	return DarkOnLight
}

// render cuts out the object, at its place in the picture, and returns it in the set's form.
func (s *scene) render(invert bool) (cut [4]int, pixels []byte) {
	gray := image.NewGray(s.Rect)
	plain := s.small() && (luma(s.background) <= least || luma(s.background) >= 255-least)
	var content image.Rectangle
	for y := range s.Rect.Dy() {
		for x := range s.Rect.Dx() {
			is := s.object[y*s.Rect.Dx()+x]
			if is {
				content = content.Union(image.Rect(x, y, x+1, y+1))
			}
			if is || plain {
				v := luma(s.RGBAAt(x, y))
				if invert {
					v = 255 - v
				}
				gray.SetGray(x, y, color.Gray{uint8(v)})
			}
		}
	}
	if s.small() {
		return [4]int{0, 0, ImageSide, ImageSide}, gray.Pix
	}
	longer := max(content.Dx(), content.Dy())
	w := max(1, (content.Dx()*ImageSide+longer/2)/longer)
	h := max(1, (content.Dy()*ImageSide+longer/2)/longer)
	out := image.NewGray(image.Rect(0, 0, ImageSide, ImageSide))
	corner := image.Pt((ImageSide-w)/2, (ImageSide-h)/2)
	draw.CatmullRom.Scale(out, image.Rectangle{corner, corner.Add(image.Pt(w, h))}, gray, content, draw.Src, nil)
	stretch(out.Pix)
	return [4]int{content.Min.X, content.Min.Y, content.Max.X, content.Max.Y}, out.Pix
}

// stretch makes the brightest pixel white, as it is in all of the set.
func stretch(pixels []byte) {
	if brightest := int(slices.Max(pixels)); brightest > 0 {
		for i, v := range pixels {
			pixels[i] = uint8((int(v)*255 + brightest/2) / brightest)
		}
	}
}

// distance is the largest difference of a channel.
func distance(a, b color.RGBA) int {
	d := func(x, y uint8) int { return int(max(x, y) - min(x, y)) }
	return max(d(a.R, b.R), d(a.G, b.G), d(a.B, b.B))
}

// luma is the brightness, 0 to 255.
func luma(c color.RGBA) int { return int(color.GrayModel.Convert(c).(color.Gray).Y) }
