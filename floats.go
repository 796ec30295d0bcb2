package evenweave

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"
)

// Floats is a tensor of type Float32 in this process's memory. Its methods do what Model.Read and Model.Write ask of a
// tensor; the caller takes care that nothing else changes it meanwhile.
type Floats []float32

// Read fills p with the tensor's encoding from a byte offset on.
func (f Floats) Read(offset int64, p []byte) error {
	if err := f.check(offset, p); err != nil {
		return err
	}
	if b := f.memory(); b != nil {
		copy(p, b[offset:])
		return nil
	}
	for i := range p {
		at := offset + int64(i)
		p[i] = byte(math.Float32bits(f[at/4]) >> (8 * (at % 4)))
	}
	return nil
}

// Write replaces the tensor's encoding from a byte offset on by p.
func (f Floats) Write(offset int64, p []byte) error {
	if err := f.check(offset, p); err != nil {
		return err
	}
	if b := f.memory(); b != nil {
		copy(b[offset:], p)
		return nil
	}
	var word [4]byte
	for i := range p {
		at := offset + int64(i)
		binary.LittleEndian.PutUint32(word[:], math.Float32bits(f[at/4]))
		word[at%4] = p[i]
		f[at/4] = math.Float32frombits(binary.LittleEndian.Uint32(word[:]))
	}
	return nil
}

func (f Floats) check(offset int64, p []byte) error {
	if size := 4 * int64(len(f)); offset < 0 || offset > size || int64(len(p)) > size-offset {
		return fmt.Errorf("bytes %d to %d of a tensor of %d: out of range", offset, offset+int64(len(p)), size)
	}
	return nil
}

// memory is the encoding of the tensor where this machine stores numbers as the encoding does, else nil: a copy by
// elements takes longer than the hash that most reads are for.
func (f Floats) memory() []byte {
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		return nil
	}
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(f))), 4*len(f))
}
