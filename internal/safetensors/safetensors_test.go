package safetensors

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"evenweave"
)

// Every tensor is found by its entry, aligned to its elements, and the file holds nothing else. deploy/interoptest
// reads such files with the Python package.
func TestTensorsAreWhereTheHeaderSays(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 200 {
		var tensors []Tensor
		total := int64(0)
		for kind := range types {
			tensor := Tensor{Tensor: evenweave.Tensor{Name: string(kind) + `/"x"`, Type: kind}}
			for range r.IntN(3) {
				tensor.Shape = append(tensor.Shape, 1+r.IntN(5))
			}
			tensor.Data = make([]byte, tensor.Bytes())
			for i := range tensor.Data {
				tensor.Data[i] = byte(r.Uint32())
			}
			tensors, total = append(tensors, tensor), total+tensor.Bytes()
		}
		var file bytes.Buffer
		if err := Write(&file, map[string]string{"task": "a"}, tensors); err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint64(file.Next(8))
		var header map[string]json.RawMessage
		if err := json.Unmarshal(file.Next(int(n)), &header); err != nil {
			t.Fatal(err)
		}
		if string(header["__metadata__"]) != `{"task":"a"}` || len(header) != len(tensors)+1 || n%8 != 0 ||
			int64(file.Len()) != total {
			t.Fatalf("header of %d bytes: %s; %d bytes of tensors, want %d", n, header["__metadata__"], file.Len(),
				total)
		}
		for _, tensor := range tensors {
			var e entry
			if err := json.Unmarshal(header[tensor.Name], &e); err != nil {
				t.Fatal(err)
			}
			at, end := e.Offsets[0], e.Offsets[1]
			if at%int64(tensor.Type.Size()) != 0 || !bytes.Equal(file.Bytes()[at:end], tensor.Data) ||
				e.Type != types[tensor.Type] || len(e.Shape) != len(tensor.Shape) || e.Shape == nil {
				t.Fatalf("%s: %+v", tensor.Name, e)
			}
		}
	}
}

func TestWrongTensorsAreNamed(t *testing.T) {
	for _, wrong := range []Tensor{
		{Tensor: evenweave.Tensor{Name: "w", Type: "complex64"}, Data: nil},
		{Tensor: evenweave.Tensor{Name: "w", Type: evenweave.Float32, Shape: []int{2}}, Data: make([]byte, 7)},
	} {
		if err := Write(&bytes.Buffer{}, nil, []Tensor{wrong}); err == nil || !strings.Contains(err.Error(), `"w"`) {
			t.Errorf("%+v: %v", wrong, err)
		}
	}
}
