//go:build cgo && !noxla && linux && (amd64 || arm64)

package backend

import (
	"math"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// A call finds the memory that the call before it freed, instead of asking the kernel for new pages. Where the heap
// cannot grow in one piece, which the layout of a process's addresses decides by chance, it does not: so one process of
// three has to.
func TestCallsReuseMemory(t *testing.T) {
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "MALLOC_") || strings.HasPrefix(v, "GLIBC_TUNABLES=") {
			t.Skipf("%s: glibc's malloc is set by the user", v)
		}
	}
	const variable = "EVENWEAVE_TEST_MALLOC"
	if os.Getenv(variable) != "" {
		if faults, pages := faultsOfCalls(t); faults > pages/2 {
			t.Errorf("each call has %d page faults or more; the matrix within has %d pages", faults, pages)
		}
		return
	}
	for range 3 {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"=1")
		out, err := cmd.CombinedOutput()
		if err == nil {
			return
		}
		t.Logf("%v\n%s", err, out)
	}
	t.Error("three processes of three ask the kernel for new pages at each call")
}

// What the user says of glibc's malloc stands: here that large blocks come from the kernel and go back to it.
func TestTheUsersMallocStands(t *testing.T) {
	const variable = "MALLOC_MMAP_THRESHOLD_"
	if os.Getenv(variable) == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), variable+"=1048576")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	if thp, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); strings.Contains(string(thp), "[always]") {
		t.Skip("every block has huge pages here, which are few faults")
	}
	if faults, pages := faultsOfCalls(t); faults < pages/2 {
		t.Errorf("a call has only %d page faults; the matrix within has %d pages", faults, pages)
	}
}

// faultsOfCalls gives the fewest page faults of a call of a program, and the pages of the matrix within.
func faultsOfCalls(t *testing.T) (fewest, pages int64) {
	b, _, _, err := Open("xla")
	if err != nil {
		t.Skip(err)
	}
	defer b.Finalize()
	const side = 4096 // 64 MiB, more than compiling leaves in one piece
	p, err := Compile(b, "sum", []shapes.Shape{shapes.Make(dtypes.Float32, side)},
		func(in []*graph.Node) []*graph.Node {
			rows := graph.BroadcastPrefix(in[0], side)
			matrix := graph.Sin(graph.Add(rows, graph.Transpose(rows, 0, 1))) // what a product takes is in memory
			// the call's own result is one number, so that it is in no large block
			return []*graph.Node{graph.ReduceAllSum(graph.MatMul(matrix, graph.InsertAxes(in[0], -1)))}
		})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	x, sum := make([]float32, side), make([]float32, 1)
	faults := func() int64 {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		return u.Minflt
	}
	fewest = math.MaxInt64
	for range 6 { // the heap grows until what one call frees is there for the next
		before := faults()
		if err := p.Run([]any{sum}, []any{x}); err != nil {
			t.Fatal(err)
		}
		fewest = min(fewest, faults()-before)
	}
	t.Log(fewest, "page faults")
	return fewest, int64(side * side * 4 / os.Getpagesize())
}
