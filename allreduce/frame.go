package allreduce

// A frame is a header of headerBytes and a payload of elements, all little-endian:
//
//	 0  magic "EWR1"          40  elements in the whole buffer
//	 4  checksum of [8, 72)   48  frame's number in the Sum
//	 8  job (hash of its id)  52  payload bytes
//	16  generation            56  checksum of the payload
//	24  sequence of the Sum   64  sender's rank; 66  world size
//	32  step                  68  zero
//
// The payload's checksum is that of the member that completed the sum. The others pass it on, so that the sum is
// checked end to end.
const (
	headerBytes = 72
	magic       = 0x31525745 // "EWR1"
	maxSize     = 1<<15 - 1
)

// header is a frame's header without the magic and its own checksum.
type header struct {
	job                        uint64
	generation, sequence, step int64
	length                     uint64
	checksum                   uint64 // of the payload
	number, payload            uint32
	rank, size                 uint16
}

func (h *header) encode(b []byte) {
	_ = b[headerBytes-1]
	le.PutUint32(b, magic)
	le.PutUint64(b[8:], h.job)
	le.PutUint64(b[16:], uint64(h.generation))
	le.PutUint64(b[24:], uint64(h.sequence))
	le.PutUint64(b[32:], uint64(h.step))
	le.PutUint64(b[40:], h.length)
	le.PutUint32(b[48:], h.number)
	le.PutUint32(b[52:], h.payload)
	le.PutUint64(b[56:], h.checksum)
	le.PutUint16(b[64:], h.rank)
	le.PutUint16(b[66:], h.size)
	le.PutUint32(b[68:], 0)
	le.PutUint32(b[4:], headerChecksum((*[stripe]byte)(b[8:])))
}

func headerChecksum(b *[stripe]byte) uint32 {
	var c checksum
	c.take(b)
	h := c.digest()
	return uint32(h ^ h>>32)
}

// decodeHeader takes the header off the front of a frame in pieces and returns the pieces of the payload, whose length
// it has checked. It changes pieces.
func decodeHeader(pieces [][]byte) (h header, payload [][]byte, err error) {
	var b [headerBytes]byte
	have := 0
	for len(pieces) > 0 && have < headerBytes {
		n := copy(b[have:], pieces[0])
		have += n
		if pieces[0] = pieces[0][n:]; len(pieces[0]) == 0 {
			pieces = pieces[1:]
		}
	}
	switch {
	case have < headerBytes:
		return h, nil, violation("a frame of %d bytes is shorter than its header of %d", have, headerBytes)
	case le.Uint32(b[:]) != magic:
		return h, nil, violation("a frame begins with %#x, not with this version's %#x", le.Uint32(b[:]), uint32(magic))
	case le.Uint32(b[4:]) != headerChecksum((*[stripe]byte)(b[8:])):
		return h, nil, violation("a frame's header was damaged on the way: its checksum is wrong")
	case le.Uint32(b[68:]) != 0:
		return h, nil, violation("a frame's header ends with %#x, expected zero", le.Uint32(b[68:]))
	}
	h = header{
		job: le.Uint64(b[8:]), generation: int64(le.Uint64(b[16:])), sequence: int64(le.Uint64(b[24:])),
		step:   int64(le.Uint64(b[32:])),
		length: le.Uint64(b[40:]), number: le.Uint32(b[48:]), payload: le.Uint32(b[52:]), checksum: le.Uint64(b[56:]),
		rank: le.Uint16(b[64:]), size: le.Uint16(b[66:]),
	}
	var bytes uint64
	for _, p := range pieces {
		bytes += uint64(len(p))
	}
	if bytes != uint64(h.payload) {
		return h, nil, violation("a frame carries %d payload bytes, its header says %d", bytes, h.payload)
	}
	return h, pieces, nil
}

// intact compares the checksum of the received payload with that in the header.
func (h *header) intact(received *checksum) error {
	if got := received.digest(); got != h.checksum {
		return violation("frame %d was damaged on the way: the checksum of its payload is %#x, its header says %#x",
			h.number, got, h.checksum)
	}
	return nil
}

// check compares a received header with the expected one, except the payload's checksum.
func (h *header) check(want *header) error {
	type field struct {
		name      string
		got, want uint64
	}
	// The common case first: a healthy ring never builds the table below.
	same := *h
	same.checksum = want.checksum
	if same == *want {
		return nil
	}
	for _, f := range [...]field{
		{"a job with hash", h.job, want.job},
		{"generation", uint64(h.generation), uint64(want.generation)},
		{"sum number", uint64(h.sequence), uint64(want.sequence)},
		{"step", uint64(h.step), uint64(want.step)},
		{"rank", uint64(h.rank), uint64(want.rank)},
		{"world size", uint64(h.size), uint64(want.size)},
		{"a buffer's length", h.length, want.length},
		{"frame number", uint64(h.number), uint64(want.number)},
		{"payload bytes", uint64(h.payload), uint64(want.payload)},
	} {
		if f.got != f.want {
			return violation("a frame is of %s %d, expected %d", f.name, int64(f.got), int64(f.want))
		}
	}
	return nil
}
