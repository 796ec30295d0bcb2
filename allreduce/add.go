package allreduce

import (
	"encoding/binary"
	"math/bits"
	"unsafe"
)

// The arithmetic works on bytes of any alignment and computes checksums in the same pass: a byte that is already in a
// register costs little more to check.

const (
	stripe = 64 // bytes that one step of the arithmetic takes
	width  = 8  // bytes of a number
	rotate = 29 // odd, so that a word returns to its place only after 64 stripes
)

var le = binary.LittleEndian

// checksum is a running checksum: eight interleaved lanes, each of which is rotated before the next 64-bit word is
// added to it. It always finds damage within one word; it misses other damage once in 2^64 times.
type checksum [stripe / 8]uint64

// digest folds the lanes together and mixes the bits. Each step is invertible, so that damage in one lane is never
// lost.
func (c *checksum) digest() uint64 {
	const odd = 0x9E3779B97F4A7C15
	var h uint64
	for _, lane := range c {
		h = (bits.RotateLeft64(h, rotate) + lane) * odd
	}
	h = (h ^ h>>32) * odd
	return h ^ h>>29
}

func (c *checksum) take(b *[stripe]byte) {
	for i := range c {
		c[i] = bits.RotateLeft64(c[i], rotate) + le.Uint64(b[8*i:])
	}
}

// copyChecked copies src to dst, of equal length, and adds src to a checksum. Only the last call for a checksum may
// have a length that is no multiple of stripe.
func copyChecked(dst, src []byte, sum *checksum) {
	n := copyStripes(dst, src, sum)
	for dst, src = dst[n:], src[n:]; len(src) > 0; dst, src = dst[n:], src[n:] {
		var b [stripe]byte
		n = copy(b[:], src)
		copy(dst, b[:n])
		sum.take(&b)
	}
}

// addInt64 adds a and b element by element into out and adds b and out to their checksums. All three have the same
// length; out may be a. Only the last call for a checksum may have a length that is no multiple of stripe.
func addInt64(out, a, b []byte, in, sum *checksum) {
	n := addInt64Stripes(out, a, b, in, sum)
	for out, a, b = out[n:], a[n:], b[n:]; len(out) > 0; out, a, b = out[n:], a[n:], b[n:] {
		var x, y [stripe]byte // The last stripe is padded with zeros for the checksums.
		copy(x[:], a)
		n = copy(y[:], b)
		in.take(&y)
		for i := 0; i < stripe; i += width {
			le.PutUint64(x[i:], le.Uint64(x[i:])+le.Uint64(y[i:]))
		}
		sum.take(&x)
		copy(out, x[:])
	}
}

// eachStripes calls f with the offset and the bytes of pieces, in whole stripes except in the last call. It joins in
// carry a stripe that lies in several pieces.
func eachStripes(pieces [][]byte, carry *[stripe]byte, f func(offset int, b []byte)) {
	offset, have := 0, 0 // have: bytes in carry
	for _, p := range pieces {
		if have > 0 {
			n := copy(carry[have:], p)
			p = p[n:]
			if have += n; have < stripe {
				continue
			}
			f(offset, carry[:])
			offset += stripe
		}
		if whole := len(p) - len(p)%stripe; whole > 0 {
			f(offset, p[:whole])
			offset, p = offset+whole, p[whole:]
		}
		have = copy(carry[:], p)
	}
	if have > 0 {
		f(offset, carry[:have])
	}
}

// bytesOf views numbers as their bytes in memory: little-endian, as New has checked.
func bytesOf(s []int64) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*width)
}

func littleEndian() bool {
	x := uint16(1)
	return *(*byte)(unsafe.Pointer(&x)) == 1
}
