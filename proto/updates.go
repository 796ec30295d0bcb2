package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	wordBytes = 8
	partWords = blockBytes / wordBytes
)

// SendWords sends what an update's sum was formed with, and its words, in parts of Update.words.
func SendWords(exponents []int32, words []int64, send func([]byte) error) error {
	size := min(partWords, len(exponents)+len(words)) * wordBytes
	part := make([]byte, 0, size)
	add := func(word uint64) error {
		part = binary.LittleEndian.AppendUint64(part, word)
		if len(part) < size {
			return nil
		}
		full := part
		part = make([]byte, 0, size) // a message may be held after it is sent
		return send(full)
	}
	for _, x := range exponents {
		if err := add(uint64(int64(x))); err != nil {
			return err
		}
	}
	for _, w := range words {
		if err := add(uint64(w)); err != nil {
			return err
		}
	}
	if len(part) == 0 {
		return nil
	}
	return send(part)
}

// Words receives what SendWords sends.
type Words struct {
	Exponents []int32
	Words     []int64
	have      int
}

// Complete says whether all words are there.
func (w *Words) Complete() bool { return w.have == len(w.Exponents)+len(w.Words) }

// Take takes a part.
func (w *Words) Take(part []byte) error {
	n := len(part) / wordBytes
	if n == 0 || len(part)%wordBytes != 0 {
		return fmt.Errorf("a part of %d bytes: expected whole words of %d", len(part), wordBytes)
	}
	if n > len(w.Exponents)+len(w.Words)-w.have {
		return errors.New("more words than a step has")
	}
	for i := range n {
		word := int64(binary.LittleEndian.Uint64(part[i*wordBytes:]))
		if at := w.have - len(w.Exponents); at >= 0 {
			w.Words[at] = word
		} else if w.Exponents[w.have] = int32(word); int64(w.Exponents[w.have]) != word {
			return fmt.Errorf("exponent %d", word)
		}
		w.have++
	}
	return nil
}
