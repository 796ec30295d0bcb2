//go:build cgo && !noxla && linux && (amd64 || arm64)

package backend

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
)

// A call finds the memory that calls before it freed, instead of asking the kernel for new pages. It is given back when
// that is asked for.
func TestCallsReuseMemory(t *testing.T) {
	for _, v := range os.Environ() {
		if strings.HasPrefix(v, "MALLOC_") || strings.HasPrefix(v, "GLIBC_TUNABLES=") {
			t.Skipf("%s: glibc's malloc is set by the user", v)
		}
	}
	faults, pages := faultsOfCalls(t)
	if faults > pages/2 {
		t.Errorf("a call has %d page faults in the mean; the matrix within has %d pages", faults, pages)
	}
	before := resident(t)
	ReturnFreedMemory()
	if after := resident(t); before-after < pages {
		t.Errorf("%d pages were resident, %d are after the free ones are given back; the matrix had %d", before, after,
			pages)
	}
}

// resident is how many pages this process has in memory.
func resident(t *testing.T) (pages int64) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err == nil {
		_, err = fmt.Sscan(string(b), new(int64), &pages)
	}
	if err != nil {
		t.Fatal(err)
	}
	return pages
}

// What the user says of glibc's malloc stands: here that large blocks come from the kernel and go back to it.
func TestTheUsersMallocStands(t *testing.T) {
	const variable = "MALLOC_MMAP_THRESHOLD_"
	if os.Getenv(variable) == "" {
		inChild(t, variable+"=1048576")
		return
	}
	if thp, _ := os.ReadFile("/sys/kernel/mm/transparent_hugepage/enabled"); strings.Contains(string(thp), "[always]") {
		t.Skip("every block has huge pages here, which are few faults")
	}
	if faults, pages := faultsOfCalls(t); faults < pages/2 {
		t.Errorf("a call has only %d page faults in the mean; the matrix within has %d pages", faults, pages)
	}
}

// faultsOfCalls gives the mean page faults of a call of a program, and the pages of the matrix within. The heap grows
// in some of the first tens of calls, until its free blocks suffice whatever lies between them.
func faultsOfCalls(t *testing.T) (mean, pages int64) {
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
	const calls = 60
	before := faults()
	for range calls {
		if err := p.Run([]any{sum}, []any{x}); err != nil {
			t.Fatal(err)
		}
	}
	mean = (faults() - before) / calls
	t.Log(mean, "page faults a call")
	return mean, int64(side * side * 4 / os.Getpagesize())
}
