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

// SendWords sends what an update's sum was formed with, and its words, in parts of Update.words. send must not keep a
// part: its memory is the next one's.
func SendWords(exponents []int32, words []int64, send func([]byte) error) error {
	memory := make([]byte, min(len(exponents)+len(words), partWords)*wordBytes)
	for len(exponents)+len(words) > 0 {
		x := exponents[:min(partWords, len(exponents))]
		w := words[:min(partWords-len(x), len(words))]
		exponents, words = exponents[len(x):], words[len(w):]
		part := memory[:(len(x)+len(w))*wordBytes]
		for i, v := range x {
			binary.LittleEndian.PutUint64(part[i*wordBytes:], uint64(int64(v)))
		}
		rest := part[len(x)*wordBytes:]
		for i, v := range w {
			binary.LittleEndian.PutUint64(rest[i*wordBytes:], uint64(v))
		}
		if err := send(part); err != nil {
			return err
		}
	}
	return nil
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
	x := w.Exponents[min(w.have, len(w.Exponents)):]
	x = x[:min(n, len(x))]
	for i := range x {
		word := int64(binary.LittleEndian.Uint64(part[i*wordBytes:]))
		if x[i] = int32(word); int64(x[i]) != word {
			return fmt.Errorf("exponent %d", word)
		}
	}
	part = part[len(x)*wordBytes:]
	words := w.Words[max(w.have-len(w.Exponents), 0):][:n-len(x)]
	for i := range words {
		words[i] = int64(binary.LittleEndian.Uint64(part[i*wordBytes:]))
	}
	w.have += n
	return nil
}
