package tensorboard

import (
	"encoding/binary"
	"fmt"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"evenweave/internal/progress"
)

// Pictures are the pictures that an evaluation shows, as an event for a Writer behind a queue.
type Pictures struct{ progress.Details }

// Kind implements progress.Event.
func (Pictures) Kind() string { return "pictures" }

const (
	pictureTag = "pictures/"
	maxDrawn   = 64 << 20 // bytes of pictures that a run keeps
)

// draw writes the pictures of an evaluation, until a run has enough of them.
func (w *Writer) draw(at time.Time, d progress.Details) {
	var all []byte
	for _, g := range d.Galleries {
		for i, p := range g.Pictures {
			if width, height, ok := sizeOf(p.PNG); ok {
				all = append(all, imageValue(fmt.Sprintf("%s%s/%02d", pictureTag, g.Title, i), width, height, p.PNG)...)
			}
		}
	}
	if len(all) == 0 || w.drew+len(all) > maxDrawn {
		return
	}
	w.drew += len(all)
	w.put(at, event(at, d.Step, protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), all)))
}

// imageValue encodes a value of a summary that is an image of 3 colours: height, width, colours, file.
func imageValue(tag string, width, height uint32, png []byte) []byte {
	var image []byte
	for field, v := range []uint32{height, width, 3} {
		image = protowire.AppendTag(image, protowire.Number(field+1), protowire.VarintType)
		image = protowire.AppendVarint(image, uint64(v))
	}
	image = protowire.AppendBytes(protowire.AppendTag(image, 4, protowire.BytesType), png)
	value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), tag)
	value = protowire.AppendBytes(protowire.AppendTag(value, 4, protowire.BytesType), image)
	return protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), value)
}

// sizeOf reads a PNG's first chunk.
func sizeOf(png []byte) (width, height uint32, ok bool) {
	if len(png) < 24 || string(png[:4]) != "\x89PNG" {
		return 0, 0, false
	}
	return binary.BigEndian.Uint32(png[16:]), binary.BigEndian.Uint32(png[20:]), true
}
