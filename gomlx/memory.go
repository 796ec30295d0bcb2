package gomlx

import (
	"errors"
	"fmt"
	"reflect"
	"sync"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// memory is a tensor on the host that programs read: in memory that the device shares, or copied to it when it is read
// after a change.
type memory struct {
	device compute.Backend
	shape  shapes.Shape
	flat   any    // a slice of the elements; nil until hold
	bytes  []byte // the same memory

	mu     sync.Mutex
	buffer compute.Buffer // nil: there is no copy on the device
}

func newMemory(device compute.Backend, shape shapes.Shape) (*memory, error) {
	m := &memory{device: device, shape: shape}
	return m, m.hold()
}

// hold allocates the memory, zeros, unless it is there. Several goroutines may call it.
func (m *memory) hold() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.allocate()
}

func (m *memory) allocate() error {
	switch {
	case m.flat != nil:
		return nil
	case m.device.HasSharedBuffers():
		buffer, flat, err := m.device.NewSharedBuffer(0, m.shape)
		if err != nil {
			return fmt.Errorf("memory for a tensor of %s: %w", m.shape, err)
		}
		m.buffer, m.flat = buffer, flat
	default:
		m.flat = newFlat(m.shape)
	}
	m.bytes = bytesOf(m.flat)
	clear(m.bytes)
	return nil
}

func newFlat(shape shapes.Shape) any {
	return reflect.MakeSlice(reflect.SliceOf(shape.DType.GoType()), shape.Size(), shape.Size()).Interface()
}

// bytesOf is the memory of a slice of numbers.
func bytesOf(flat any) []byte {
	v := reflect.ValueOf(flat)
	return unsafe.Slice((*byte)(v.UnsafePointer()), v.Len()*int(v.Type().Elem().Size()))
}

// ready returns what a program reads. Several goroutines may call it.
func (m *memory) ready() (compute.Buffer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.allocate(); err != nil {
		return nil, err
	}
	if m.buffer == nil {
		var err error
		if m.buffer, err = m.device.BufferFromFlatData(0, m.flat, m.shape); err != nil {
			return nil, err
		}
	}
	return m.buffer, nil
}

// changed must follow each change of flat or bytes.
func (m *memory) changed() error {
	if m.device.HasSharedBuffers() || m.buffer == nil {
		return nil
	}
	old := m.buffer
	m.buffer = nil
	return old.Finalize()
}

// take makes the result of a program the content. Where host and device share memory that is the result itself; inUse
// says which memory others have.
func (m *memory) take(result compute.Buffer, inUse map[*byte]bool) error {
	if m.device.HasSharedBuffers() {
		flat, err := result.Data()
		if err != nil {
			return errors.Join(err, result.Finalize())
		}
		bytes := bytesOf(flat)
		if len(bytes) == len(m.bytes) && !inUse[unsafe.SliceData(bytes)] {
			old := m.buffer
			inUse[unsafe.SliceData(bytes)] = true
			m.buffer, m.flat, m.bytes = result, flat, bytes
			return old.Finalize()
		}
	}
	if err := result.ToFlatData(m.flat); err != nil {
		return errors.Join(err, result.Finalize())
	}
	if m.device.HasSharedBuffers() {
		return result.Finalize()
	}
	err := m.changed()
	m.buffer = result
	return err
}

func (m *memory) release() error {
	if m.buffer == nil {
		return nil
	}
	old := m.buffer
	m.buffer = nil
	return old.Finalize()
}
