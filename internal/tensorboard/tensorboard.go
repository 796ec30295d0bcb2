// Package tensorboard writes the learning curve as TensorBoard's event files: TFRecords of Event messages. The fields'
// numbers are those of event.proto and summary.proto.
package tensorboard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"evenweave/internal/progress"
	"evenweave/internal/regular"
)

// Folder is where a run directory keeps its event files.
const Folder = "tensorboard"

// fileName is that of the n-th file. TensorBoard reads the files of a folder in the order of their names.
func fileName(n int) string { return fmt.Sprintf("events.out.tfevents.%010d.evenweave", n) }

// Writer is a progress.Observer that writes scalars: a file of its own for each leader, which begins behind what
// earlier ones have written, so that no leader that was paused can write where another does. It is used by one
// goroutine; put progress.Detach in front of it, because it waits for the disk.
type Writer struct {
	dir  string
	rate func(step int64) float64
	next int // number of the next file
	last int // step of the newest scalar of a step
	seen map[int]bool
	file *os.File // nil until there is something to write
	drew int      // bytes of pictures
	err  error    // of the first write that failed: nothing is written after it
}

// Open finds what earlier leaders of a run wrote in dir. rate gives the learning rate of a step, if the model has one;
// nil: it has none.
func Open(dir string, rate func(step int64) float64) (*Writer, error) {
	w := &Writer{dir: dir, rate: rate, seen: map[int]bool{}}
	names, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("tensorboard: %w", err)
	}
	for _, n := range names {
		number := 0
		if _, err := fmt.Sscanf(n.Name(), "events.out.tfevents.%d.", &number); err != nil ||
			n.Name() != fileName(number) {
			continue
		}
		w.next = max(w.next, number+1)
		if err := w.recall(filepath.Join(dir, n.Name())); err != nil {
			return nil, fmt.Errorf("tensorboard: %w", err)
		}
	}
	return w, nil
}

// Observe implements progress.Observer.
func (w *Writer) Observe(r progress.Record) {
	switch e := r.Event.(type) {
	case progress.Step:
		if e.Step > w.last && kept(e.Step) {
			w.last = e.Step
			w.write(r.Time, e.Step, w.step(e))
		}
	case Pictures:
		w.draw(r.Time, e.Details)
	case progress.Evaluation:
		if !w.seen[e.Step] {
			w.seen[e.Step] = true
			w.write(r.Time, e.Step, evaluation(e))
		}
	}
}

// kept thins out the steps of long runs: all up to 10,000, a tenth of them up to 100,000, and so on. TensorBoard shows
// a thousand.
func kept(step int) bool {
	every := 1
	for n := step; n > 10_000; n /= 10 {
		every *= 10
	}
	return step%every == 0
}

// scalar is a number with its tag.
type scalar struct {
	tag   string
	value float64
}

func (w *Writer) step(e progress.Step) []scalar {
	var all []scalar
	if e.Skipped == "" {
		all = append(all, scalar{"train/loss", e.Loss})
		for _, m := range e.Metrics {
			all = append(all, scalar{"train/" + m.Name, m.Value})
		}
	}
	if w.rate != nil {
		all = append(all, scalar{"train/learning_rate", w.rate(int64(e.Step) - 1)})
	}
	return append(all, scalar{"cluster/world_size", float64(e.Workers)}, scalar{"cluster/generation",
		float64(e.Generation)}, scalar{"cluster/samples_per_second", e.SamplesPerSecond},
		scalar{"step_ms/compute", e.ComputeMS}, scalar{"step_ms/wait", e.WaitMS}, scalar{"step_ms/reduce", e.ReduceMS},
		scalar{"step_ms/update", e.UpdateMS})
}

func evaluation(e progress.Evaluation) (all []scalar) {
	for _, f := range e.Figures {
		all = append(all, scalar{"test/" + f.Name, f.Value})
	}
	for _, f := range e.Holdout {
		all = append(all, scalar{"holdout/" + f.Name, f.Value})
	}
	return all
}

func (w *Writer) write(at time.Time, step int, scalars []scalar) {
	if len(scalars) > 0 {
		w.put(at, event(at, step, summary(scalars)))
	}
}

// put writes an event, in a file that begins with the first.
func (w *Writer) put(at time.Time, data []byte) {
	if w.err == nil && w.file == nil {
		w.err = w.begin(at)
	}
	if w.err == nil {
		_, w.err = w.file.Write(record(data))
	}
}

// begin makes the file.
func (w *Writer) begin(at time.Time) (err error) {
	if err := os.MkdirAll(w.dir, 0o700); err != nil {
		return err
	}
	for ; ; w.next++ {
		path := filepath.Join(w.dir, fileName(w.next))
		w.file, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
		if !errors.Is(err, os.ErrExist) {
			break
		}
	}
	if err == nil {
		_, err = w.file.Write(record(event(at, 0, protowire.AppendString(
			protowire.AppendTag(nil, 3, protowire.BytesType), "brain.Event:2"))))
	}
	return err
}

// Close closes the file. Its error says what kept the Writer from writing.
func (w *Writer) Close() error {
	err := w.err
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	if err != nil {
		return fmt.Errorf("tensorboard: %w", err)
	}
	return nil
}

// event encodes an Event: wall_time, step, and a field that holds what it is of.
func event(at time.Time, step int, what []byte) []byte {
	b := protowire.AppendTag(nil, 1, protowire.Fixed64Type)
	b = protowire.AppendFixed64(b, math.Float64bits(float64(at.UnixNano())/1e9))
	b = protowire.AppendTag(b, 2, protowire.VarintType)
	return append(protowire.AppendVarint(b, uint64(step)), what...)
}

// summary encodes the field of an Event that holds scalars.
func summary(scalars []scalar) []byte {
	var all []byte
	for _, s := range scalars {
		value := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), s.tag)
		value = protowire.AppendTag(value, 2, protowire.Fixed32Type)
		value = protowire.AppendFixed32(value, math.Float32bits(float32(s.value)))
		all = protowire.AppendBytes(protowire.AppendTag(all, 1, protowire.BytesType), value)
	}
	return protowire.AppendBytes(protowire.AppendTag(nil, 5, protowire.BytesType), all)
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// masked is the checksum of TFRecords: CRC32C, rotated, so that a checksum of data that holds checksums is no trap.
func masked(b []byte) uint32 {
	sum := crc32.Checksum(b, castagnoli)
	return (sum>>15 | sum<<17) + 0xa282ead8
}

// record wraps data in a TFRecord: length, its checksum, data, its checksum.
func record(data []byte) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(data)))
	b = binary.LittleEndian.AppendUint32(b, masked(b))
	b = append(b, data...)
	return binary.LittleEndian.AppendUint32(b, masked(data))
}

const maxRecord = 1 << 20 // bytes of a record that recall reads

// recall notes the steps that a file holds, up to its end or what is damaged.
func (w *Writer) recall(path string) error {
	f, _, err := regular.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	r := io.Reader(f)
	for {
		data, err := readRecord(r)
		if err != nil {
			return nil // a crash cut the last one off, or TensorBoard cannot read on either
		}
		w.note(data)
	}
}

var errDamaged = errors.New("damaged record")

func readRecord(r io.Reader) ([]byte, error) {
	head := make([]byte, 12)
	if _, err := io.ReadFull(r, head); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(head)
	if masked(head[:8]) != binary.LittleEndian.Uint32(head[8:]) || n > maxRecord {
		return nil, errDamaged
	}
	data := make([]byte, n+4)
	if _, err := io.ReadFull(r, data); err != nil {
		return nil, err
	}
	if masked(data[:n]) != binary.LittleEndian.Uint32(data[n:]) {
		return nil, errDamaged
	}
	return data[:n], nil
}

// note finds out what step an event is of, and whether of training or of an evaluation.
func (w *Writer) note(data []byte) {
	step, first, size := 0, "", len(data)
	for len(data) > 0 {
		field, kind, n := protowire.ConsumeTag(data)
		if n < 0 {
			return
		}
		data = data[n:]
		switch {
		case field == 2 && kind == protowire.VarintType:
			v, _ := protowire.ConsumeVarint(data)
			step = int(v)
		case field == 5 && kind == protowire.BytesType:
			all, _ := protowire.ConsumeBytes(data)
			first = firstTag(all)
		}
		if n = protowire.ConsumeFieldValue(field, kind, data); n < 0 {
			return
		}
		data = data[n:]
	}
	if strings.HasPrefix(first, pictureTag) {
		w.drew += size
	} else if strings.HasPrefix(first, "train/") {
		w.last = max(w.last, step)
	} else if first != "" {
		w.seen[step] = true
	}
}

// firstTag is the tag of a summary's first value, whose fields come in the order that this package writes.
func firstTag(summary []byte) string {
	_, _, n := protowire.ConsumeTag(summary)
	value, m := protowire.ConsumeBytes(summary[max(n, 0):])
	if n < 0 || m < 0 {
		return ""
	}
	_, _, n = protowire.ConsumeTag(value)
	tag, m := protowire.ConsumeString(value[max(n, 0):])
	if n < 0 || m < 0 {
		return ""
	}
	return tag
}
