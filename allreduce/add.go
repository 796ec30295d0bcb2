package allreduce

import (
	"encoding/binary"
	"math"
	"unsafe"
)

// adder adds two byte ranges element by element into a third of the same length, a multiple of the element's size. out may be a or b.
type adder func(out, a, b []byte)

// arithmetic returns the element's size in bytes and its adder.
func arithmetic[T Element]() (width int, add adder) {
	var zero T
	if width = int(unsafe.Sizeof(zero)); width == 8 {
		return width, addInt64
	}
	return width, addFloat32
}

// bytesOf views elements as the bytes that they are in memory: little-endian, as New has checked.
func bytesOf[T Element](s []T) []byte {
	var zero T
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(zero)))
}

func littleEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}

// addPieces is add with b cut into pieces anywhere, also within an element. out, a and the pieces together are equally long.
func addPieces(add adder, width int, out, a []byte, pieces [][]byte) {
	var carry [8]byte
	have := 0 // bytes of an element that the last piece began
	for _, p := range pieces {
		if have > 0 {
			n := copy(carry[have:width], p)
			p = p[n:]
			if have += n; have < width {
				continue
			}
			add(out[:width], a[:width], carry[:width])
			out, a, have = out[width:], a[width:], 0
		}
		whole := len(p) - len(p)%width
		add(out[:whole], a[:whole], p[:whole])
		out, a = out[whole:], a[whole:]
		have = copy(carry[:], p[whole:])
	}
}

// copyPieces joins pieces into out.
func copyPieces(out []byte, pieces [][]byte) {
	for _, p := range pieces {
		out = out[copy(out, p):]
	}
}

func addInt64Plain(out, a, b []byte) {
	le := binary.LittleEndian
	for len(out) >= 8 && len(a) >= 8 && len(b) >= 8 {
		le.PutUint64(out, le.Uint64(a)+le.Uint64(b))
		out, a, b = out[8:], a[8:], b[8:]
	}
}

func addFloat32Plain(out, a, b []byte) {
	le := binary.LittleEndian
	for len(out) >= 4 && len(a) >= 4 && len(b) >= 4 {
		le.PutUint32(out, math.Float32bits(math.Float32frombits(le.Uint32(a))+math.Float32frombits(le.Uint32(b))))
		out, a, b = out[4:], a[4:], b[4:]
	}
}
