package picture

import (
	"bytes"
	"encoding/binary"
	"image"
)

// Orientation returns how a camera held the picture that a file has: the value of EXIF's tag Orientation, 1 to 8, of a
// JPEG, PNG or WebP file. It returns 1, upright, where the file does not say, or says it wrongly. It reads that one tag
// alone: no library that does is smaller than its formats.
func Orientation(data []byte) int {
	switch {
	case bytes.HasPrefix(data, []byte("\xff\xd8")):
		return orientationOfJPEG(data[2:])
	case bytes.HasPrefix(data, []byte("\x89PNG\r\n\x1a\n")):
		return orientationOfChunks(data[8:], binary.BigEndian, true, "eXIf")
	case len(data) >= 12 && string(data[:4])+string(data[8:12]) == "RIFFWEBP":
		return orientationOfChunks(data[12:], binary.LittleEndian, false, "EXIF")
	}
	return 1
}

// orientationOfJPEG looks through the segments before the first scan.
func orientationOfJPEG(data []byte) int {
	const app1, startOfScan = 0xe1, 0xda
	for len(data) >= 4 && data[0] == 0xff {
		marker, length := data[1], int(binary.BigEndian.Uint16(data[2:]))
		if marker == 0xff { // padding
			data = data[1:]
			continue
		}
		if marker == startOfScan || length < 2 || 2+length > len(data) {
			break
		}
		if exif, ok := bytes.CutPrefix(data[4:2+length], []byte("Exif\x00\x00")); ok && marker == app1 {
			return orientationOfTIFF(exif)
		}
		data = data[2+length:]
	}
	return 1
}

// orientationOfChunks looks through chunks: length and name, in PNG (which adds a checksum) in this order.
func orientationOfChunks(data []byte, order binary.ByteOrder, isPNG bool, name string) int {
	for len(data) >= 8 {
		length, found := uint64(order.Uint32(data[4:])), string(data[:4])
		after := length + length%2
		if isPNG {
			length, found = uint64(order.Uint32(data)), string(data[4:8])
			after = length + 4
		}
		if data = data[8:]; length > uint64(len(data)) {
			break
		}
		if found == name {
			return orientationOfTIFF(bytes.TrimPrefix(data[:length], []byte("Exif\x00\x00")))
		}
		data = data[min(after, uint64(len(data))):]
	}
	return 1
}

// orientationOfTIFF reads the tag in the first directory of EXIF's data, which have the form of a TIFF file.
func orientationOfTIFF(data []byte) int {
	const tag, entrySize, short = 0x0112, 12, 3
	var order binary.ByteOrder = binary.LittleEndian
	switch {
	case bytes.HasPrefix(data, []byte("MM\x00*")):
		order = binary.BigEndian
	case !bytes.HasPrefix(data, []byte("II*\x00")):
		return 1
	}
	if len(data) < 8 || uint64(order.Uint32(data[4:]))+2 > uint64(len(data)) {
		return 1
	}
	directory := data[order.Uint32(data[4:]):]
	entries := directory[2:]
	for range order.Uint16(directory) {
		if len(entries) < entrySize {
			break
		}
		if order.Uint16(entries) == tag {
			if v := int(order.Uint16(entries[8:])); order.Uint16(entries[2:]) == short && v >= 1 && v <= 8 {
				return v
			}
			break
		}
		entries = entries[entrySize:]
	}
	return 1
}

// Upright turns and mirrors a picture whose file has this orientation, so that up is up.
func Upright(m *image.RGBA, orientation int) *image.RGBA {
	w, h := m.Rect.Dx(), m.Rect.Dy()
	right, bottom := w-1, h-1
	var from func(x, y int) (int, int) // where the pixel at x, y of the result comes from
	switch orientation {
	case 2:
		from = func(x, y int) (int, int) { return right - x, y }
	case 3:
		from = func(x, y int) (int, int) { return right - x, bottom - y }
	case 4:
		from = func(x, y int) (int, int) { return x, bottom - y }
	case 5:
		from = func(x, y int) (int, int) { return y, x }
	case 6:
		from = func(x, y int) (int, int) { return y, bottom - x }
	case 7:
		from = func(x, y int) (int, int) { return right - y, bottom - x }
	case 8:
		from = func(x, y int) (int, int) { return right - y, x }
	default:
		return m
	}
	if orientation >= 5 {
		w, h = h, w
	}
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			sx, sy := from(x, y)
			out.SetRGBA(x, y, m.RGBAAt(m.Rect.Min.X+sx, m.Rect.Min.Y+sy))
		}
	}
	return out
}
