package allreduce

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

// pieces cuts a frame at random.
func pieces(b []byte, rng *rand.Rand) [][]byte {
	var all [][]byte
	for len(b) > 0 {
		n := rng.IntN(len(b)) + 1
		all = append(all, b[:n])
		b = b[n:]
	}
	return all
}

var sample = header{job: 1, generation: -2, sequence: 3, step: 4, length: 5, checksum: 6, number: 7, payload: 8,
	rank: 9, size: 10}

func TestHeaderSurvivesAnyCut(t *testing.T) {
	frame := make([]byte, headerBytes+8)
	sample.encode(frame)
	copy(frame[headerBytes:], "payload!")
	rng := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		h, rest, err := decodeHeader(pieces(frame, rng))
		if err != nil || h != sample || string(bytes.Join(rest, nil)) != "payload!" {
			t.Fatalf("got %+v, %q, %v", h, rest, err)
		}
	}
}

func TestEveryBitOfAHeaderIsChecked(t *testing.T) {
	for bit := range headerBytes * 8 {
		frame := make([]byte, headerBytes+8)
		sample.encode(frame)
		frame[bit/8] ^= 1 << (bit % 8)
		if _, _, err := decodeHeader([][]byte{frame}); !errors.As(err, &protocolError{}) {
			t.Fatalf("bit %d flipped: got %v, expected a violation", bit, err)
		}
	}
}

func TestEveryBitOfAPayloadIsChecked(t *testing.T) {
	payload := make([]byte, 3*stripe+8)
	for i := range payload {
		payload[i] = byte(i * 7)
	}
	sum := func() uint64 {
		var c checksum
		copyChecked(make([]byte, len(payload)), payload, &c)
		return c.digest()
	}
	want := sum()
	for bit := range len(payload) * 8 {
		payload[bit/8] ^= 1 << (bit % 8)
		if sum() == want {
			t.Fatalf("bit %d flipped, and the checksum is the same", bit)
		}
		payload[bit/8] ^= 1 << (bit % 8)
	}
	for i := 0; i+16 <= len(payload); i += 8 { // swapped words
		swapped := append([]byte(nil), payload...)
		copy(swapped[i:], payload[i+8:i+16])
		copy(swapped[i+8:], payload[i:i+8])
		var c checksum
		copyChecked(make([]byte, len(swapped)), swapped, &c)
		if c.digest() == want {
			t.Fatalf("words %d and %d swapped, and the checksum is the same", i/8, i/8+1)
		}
	}
}

// FuzzFrame feeds the decoder anything: it must refuse a frame or return what is in it, and never panic or allocate
// what a header claims.
func FuzzFrame(f *testing.F) {
	frame := make([]byte, headerBytes+8)
	sample.encode(frame)
	f.Add(frame, uint64(1))
	f.Add([]byte{}, uint64(2))
	f.Fuzz(func(t *testing.T, frame []byte, cuts uint64) {
		original := append([]byte(nil), frame...)
		h, payload, err := decodeHeader(pieces(frame, rand.New(rand.NewPCG(cuts, 0))))
		if !bytes.Equal(frame, original) {
			t.Fatal("the decoder changed the frame")
		}
		if err != nil {
			if !errors.As(err, &protocolError{}) {
				t.Fatalf("%v is no violation", err)
			}
			return
		}
		again := make([]byte, headerBytes)
		h.encode(again)
		if !bytes.Equal(again, frame[:headerBytes]) || len(bytes.Join(payload, nil)) != len(frame)-headerBytes {
			t.Fatalf("decoded %+v, which is not what the frame says", h)
		}
		var c, joined checksum
		var carry [stripe]byte
		out := make([]byte, len(frame)-headerBytes)
		eachStripes(payload, &carry, func(at int, b []byte) { copyChecked(out[at:at+len(b)], b, &c) })
		copyChecked(make([]byte, len(out)), frame[headerBytes:], &joined)
		if !bytes.Equal(out, frame[headerBytes:]) || c != joined {
			t.Fatal("joined pieces are not the payload")
		}
		_ = h.check(&sample)
	})
}
