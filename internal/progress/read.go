package progress

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"slices"
	"strconv"

	"evenweave/internal/regular"
)

const (
	maxFile = 64 << 30 // bytes: 200 million steps
	maxLine = 1 << 20  // bytes: a longer line is damaged
)

// Damaged counts lines that are no records.
type Damaged struct {
	Lines int
	First int // the number of the first, from 1; 0: there is none
}

// ReadMetrics gives each the records of the file at path in its order. It skips damaged lines, and a last one that is
// half-written. It takes the same memory whatever the file's size, and may be called while the file is being written.
func ReadMetrics(path string, each func(Record)) (Damaged, error) {
	f, size, err := regular.Open(path)
	if err != nil {
		return Damaged{}, fmt.Errorf("progress: read metrics: %w", err)
	}
	defer f.Close()
	damaged, _, err := readRecords(f, size, each)
	if err != nil {
		err = fmt.Errorf("progress: read metrics %s: %w", path, err)
	}
	return damaged, err
}

// readRecords gives each the records of the first size bytes, of which `whole` are whole lines.
func readRecords(r io.Reader, size int64, each func(Record)) (damaged Damaged, whole int64, err error) {
	if size > maxFile {
		return damaged, 0, fmt.Errorf("it has %d bytes: expected at most %d; move it away to begin another", size,
			int64(maxFile))
	}
	var steps stepDecoder
	in := bufio.NewReaderSize(io.LimitReader(r, size), maxLine)
	for number := 1; ; number++ {
		line, err := in.ReadSlice('\n')
		length, long := len(line), false
		for err == bufio.ErrBufferFull {
			line, err = in.ReadSlice('\n')
			length, long = length+len(line), true
		}
		if err == io.EOF {
			return damaged, whole, nil
		} else if err != nil {
			return damaged, whole, err
		}
		whole += int64(length)
		if !long && len(bytes.TrimSpace(line)) == 0 {
			continue
		}
		if record, ok := steps.record(line); ok && !long {
			each(record)
		} else if damaged.Lines++; damaged.First == 0 {
			damaged.First = number
		}
	}
}

// stepDecoder decodes steps in the form of [Encode] in a twentieth of the time of [Decode].
type stepDecoder struct{ names []string } // metrics of the last step: each once, and none is a step's own field

// record decodes any line; false: it is no record.
func (d *stepDecoder) record(line []byte) (Record, bool) {
	if r, ok := d.decode(line); ok {
		return r, true
	}
	r, err := Decode(line)
	return r, err == nil
}

// decode says no of any line but a step, which may be a record all the same.
func (d *stepDecoder) decode(line []byte) (r Record, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte(`{"event":"step","time":`))
	end := bytes.IndexByte(rest, ',')
	if !ok || end < 0 || r.Time.UnmarshalJSON(rest[:end]) != nil || r.Time.IsZero() {
		return r, false
	}
	var s Step
	for rest = rest[end:]; ; {
		rest, ok = bytes.CutPrefix(rest, []byte(`,"`))
		end := bytes.Index(rest, []byte(`":`))
		if !ok || end < 0 {
			return r, false
		}
		name, length := rest[:end], numberLength(rest[end+2:])
		number := rest[end+2:][:length]
		if rest = rest[end+2+length:]; length == 0 || len(rest) == 0 || !d.set(&s, name, number) {
			return r, false
		}
		if rest[0] == '}' {
			r.Event = s
			return r, len(rest) == 1 || len(rest) == 2 && rest[1] == '\n'
		}
	}
}

// set puts a number into the field or metric of that name.
func (d *stepDecoder) set(s *Step, name, number []byte) bool {
	var err error
	switch string(name) {
	case "step":
		s.Step, err = strconv.Atoi(string(number))
	case "epoch":
		s.Epoch, err = strconv.Atoi(string(number))
	case "workers":
		s.Workers, err = strconv.Atoi(string(number))
	case "skips":
		s.Skips, err = strconv.Atoi(string(number))
	case "images":
		s.Images, err = strconv.ParseInt(string(number), 10, 64)
	case "generation":
		s.Generation, err = strconv.ParseUint(string(number), 10, 64)
	case "loss":
		s.Loss, err = strconv.ParseFloat(string(number), 64)
	case "seconds":
		s.Seconds, err = strconv.ParseFloat(string(number), 64)
	case "samples_per_second":
		s.SamplesPerSecond, err = strconv.ParseFloat(string(number), 64)
	case "compute_ms":
		s.ComputeMS, err = strconv.ParseFloat(string(number), 64)
	case "reduce_ms":
		s.ReduceMS, err = strconv.ParseFloat(string(number), 64)
	case "wait_ms":
		s.WaitMS, err = strconv.ParseFloat(string(number), 64)
	case "update_ms":
		s.UpdateMS, err = strconv.ParseFloat(string(number), 64)
	default:
		n := len(s.Metrics)
		if n >= len(d.names) || d.names[n] != string(name) {
			if !plain(name) || isStepField(string(name)) || CheckName(string(name)) != nil || n == MaxMetrics ||
				slices.Contains(d.names[:n], string(name)) {
				return false
			}
			d.names = append(d.names[:n], string(name))
		}
		var value float64
		value, err = strconv.ParseFloat(string(number), 64)
		s.Metrics = append(s.Metrics, Metric{d.names[n], value})
	}
	return err == nil
}

// plain says whether a JSON string means these bytes.
func plain(name []byte) bool {
	return !slices.ContainsFunc(name, func(c byte) bool { return c < ' ' || c > '~' || c == '\\' || c == '"' })
}

// numberLength is how many bytes of b are a number in JSON's grammar.
func numberLength(b []byte) int {
	at := 0
	digits := func() bool {
		from := at
		for at < len(b) && '0' <= b[at] && b[at] <= '9' {
			at++
		}
		return at > from
	}
	next := func(any string) bool {
		for i := 0; i < len(any) && at < len(b); i++ {
			if any[i] == b[at] {
				at++
				return true
			}
		}
		return false
	}
	next("-")
	if !next("0") && !digits() || next(".") && !digits() {
		return 0
	}
	if next("eE") {
		next("+-")
		if !digits() {
			return 0
		}
	}
	return at
}
