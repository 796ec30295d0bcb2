package cnn

import (
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"evenweave/gomlx/backend"

	"evenweave/internal/processors"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
	"golang.org/x/sys/cpu"
)

var update = flag.Bool("update", false, "write testdata again")

// TestOnlyPortableOperations reads what XLA compiled, for all recipes and for some sizes of micro-batch: no product
// that YNNPACK does not compute, and no loop that adds floats.
func TestOnlyPortableOperations(t *testing.T) {
	const child = "EVENWEAVE_TEST_OPERATIONS"
	if asked := os.Getenv(child); asked != "" {
		var o Options
		if _, err := fmt.Sscan(asked, &o.Recipe, &o.MicroBatch); err != nil {
			t.Fatal(err)
		}
		o.Backend = "xla"
		m := open(t, o)
		if err := m.Logits(make([]byte, pixels), make([]float32, classes)); err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, asked := range []string{"tutorial 16", "fast 16", "augment 16", "tutorial 1", "tutorial 3", "tutorial 50",
		"tutorial 128"} {
		t.Run(asked, func(t *testing.T) {
			dir := t.TempDir()
			cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOnlyPortableOperations$", "-test.v")
			cmd.Env = append(os.Environ(), child+"="+asked, "XLA_FLAGS=--xla_dump_hlo_as_text --xla_dump_to="+dir)
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			if regexp.MustCompile(`(?m)^\s*--- SKIP`).Match(out) {
				t.Skipf("%s", out)
			}
			files, err := filepath.Glob(filepath.Join(dir, "*.cpu_after_optimizations.txt"))
			if err != nil || len(files) != 3 {
				t.Fatalf("programs %v, %v", files, err)
			}
			for _, file := range files {
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				// Dropout's mask takes four; XLA is glad to compute it in each loop that needs it.
				if n := strings.Count(string(text), " xor("); n > 4 {
					t.Errorf("%s: %d times an exclusive or, 4 make dropout's mask", filepath.Base(file), n)
				}
				for _, line := range unportable(string(text)) {
					t.Errorf("%s: %s", filepath.Base(file), line)
				}
			}
		})
	}
}

var (
	computationHead = regexp.MustCompile(`^(?:ENTRY )?(%[\w.-]+) \(.*\{$`)
	ynnFusion       = regexp.MustCompile(`%ynn_fusion[\w.]* = .*calls=(%[\w.-]+)`)
	reduction       = regexp.MustCompile(
		` (?:reduce|reduce-window|scatter|all-reduce|select-and-scatter)\(.*(?:to_apply|scatter)=(%[\w.-]+)`)
	floatAdd  = regexp.MustCompile(`= (?:f|bf)\d+\[.* (?:add|multiply)\(`)
	elsewhere = regexp.MustCompile(` (?:dot|convolution|custom-call)\(`)
)

// unportable returns those lines of an optimized program whose bits the processor may choose.
func unportable(program string) (found []string) {
	bodies, order := map[string][]string{}, []string{}
	for line := range strings.Lines(program) {
		line = strings.TrimSpace(line)
		if head := computationHead.FindStringSubmatch(line); head != nil {
			order = append(order, head[1])
		} else if len(order) > 0 {
			last := order[len(order)-1]
			bodies[last] = append(bodies[last], line)
		}
	}
	ynn := map[string]bool{}
	for _, match := range ynnFusion.FindAllStringSubmatch(program, -1) {
		ynn[match[1]] = true
	}
	for _, name := range order {
		for _, line := range bodies[name] {
			if !ynn[name] && elsewhere.MatchString(line) {
				found = append(found, line)
			}
			if r := reduction.FindStringSubmatch(line); r != nil &&
				slices.ContainsFunc(bodies[r[1]], floatAdd.MatchString) {
				found = append(found, line)
			}
		}
	}
	return found
}

// TestUnportableOperationsAreFound: the reader of programs is not blind.
func TestUnportableOperationsAreFound(t *testing.T) {
	const program = `HloModule m, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  ROOT %sum = f32[] add(%x, %y)
}

%count (x: s32[], y: s32[]) -> s32[] {
  ROOT %sum.1 = s32[] add(%x, %y)
}

%inside (a: f32[2,2], b: f32[2,2]) -> f32[2,2] {
  ROOT %dot.1 = f32[2,2]{1,0} dot(%a, %b), lhs_contracting_dims={1}, rhs_contracting_dims={0}
}

ENTRY %main (a: f32[2,2], b: f32[2,2]) -> f32[2,2] {
  %ynn_fusion.1 = f32[2,2]{1,0} fusion(%a, %b), kind=kCustom, calls=%inside
  %n = s32[] reduce(%c, %zero), dimensions={0}, to_apply=%count
  %s = f32[2]{0} reduce(%a, %zero), dimensions={0}, to_apply=%add
  ROOT %dot.2 = f32[2,2]{1,0} dot(%a, %b), lhs_contracting_dims={0}, rhs_contracting_dims={0}
}
`
	found := unportable(program)
	if len(found) != 2 || !strings.Contains(found[0], "%s =") || !strings.Contains(found[1], "%dot.2") {
		t.Errorf("found %q, expected the float sum and the second product", found)
	}
}

const probeFile = "testdata/numerics.json"

// TestNumericsOfThisProcessor compares the golden probe with the one checked in: every x86-64 processor with FMA that
// runs it is a witness that the built-in recipes train with the same bits there. -update writes the file again.
func TestNumericsOfThisProcessor(t *testing.T) {
	kind := processors.Kind()
	t.Logf("processor: %s", kind)
	if !processors.FMA() {
		t.Skipf("the probe is the one of x86-64 processors with FMA, this is %s", kind)
	}
	want := map[string]string{}
	if raw, err := os.ReadFile(probeFile); err != nil && !*update {
		t.Fatal(err)
	} else if err == nil {
		if err := json.Unmarshal(raw, &want); err != nil {
			t.Fatal(err)
		}
	}
	for _, backend := range []string{"xla", "go"} {
		for _, r := range recipes() {
			name := backend + " " + r.Name
			t.Run(name, func(t *testing.T) {
				switch path := os.Getenv("PJRT_PLUGIN_LIBRARY_PATH"); {
				case backend == "xla" && path != "":
					t.Skipf("the probe is that of the plug-in that `make setup` fetches, PJRT_PLUGIN_LIBRARY_PATH=%s",
						path)
				case backend == "go" && !simdBuilt:
					t.Skip("the probe is that of a build with GOEXPERIMENT=simd")
				}
				got, err := open(t, Options{Backend: backend, MicroBatch: 16, Recipe: r.Name,
					TotalSteps: 100}).numerics()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%s: %s", name, got)
				if *update {
					want[name] = got
				} else if got != want[name] {
					t.Errorf("%s: %s gives %s, expected %s: a change of the network needs -update and an entry "+
						"in CHANGELOG.md; "+
						"an unchanged one has found a processor of another class (see docs/exactness.md)",
						name, kind, got, want[name])
				}
			})
		}
	}
	const narrow = "GOMLX_SIMD_AVX512"
	if cpu.X86.HasAVX512F && simdBuilt && os.Getenv(narrow) == "" && !*update {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+t.Name()+"$/^go")
		cmd.Env = append(os.Environ(), narrow+"=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("go with AVX2 only: %v\n%s", err, out)
		}
	}
	if *update {
		raw, err := json.MarshalIndent(want, "", "\t")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(probeFile, append(raw, '\n'), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// A gpu is a backend that looks like a GPU's to plain.
type gpu struct{ compute.Backend }

func (gpu) HasSharedBuffers() bool { return false }

// TestPlainFormsOnGPUs: there the programs have plain sums, here none, and both compute the same.
func TestPlainFormsOnGPUs(t *testing.T) {
	device, _, _, err := backend.Open("go")
	if err != nil {
		t.Fatal(err)
	}
	defer device.Finalize()
	const n = 3
	recipe := recipes()[slices.IndexFunc(recipes(), func(r Recipe) bool { return r.Name == "fast" })]
	batch := someContent(n)
	gradients := func(b compute.Backend) (*backend.Program, []any, []any) {
		p, err := compileGradients(b, n, numParameters(classes), recipe)
		if err != nil {
			t.Fatal(err)
		}
		params := make([]float32, numParameters(classes))
		initialParameters(1, params)
		return p, []any{make([]float32, numParameters(classes)), make([]float32, 2)},
			[]any{params, batch.Images, batch.Labels, batch.Weights, []uint32{1}, []uint32{2}}
	}
	update := func(b compute.Backend) (*backend.Program, []any, []any) {
		p, err := compileUpdate(b, numParameters(classes), recipe)
		if err != nil {
			t.Fatal(err)
		}
		state, gradient := make([]float32, 3*numParameters(classes)), make([]float32, numParameters(classes))
		initialParameters(1, state[:numParameters(classes)])
		initialParameters(2, gradient)
		one := []float32{1}
		return p, []any{make([]float32, 3*numParameters(classes))}, []any{state, gradient, one, one, one}
	}
	for name, program := range map[string]func(compute.Backend) (*backend.Program, []any, []any){"gradients": gradients,
		"update": update} {
		run := func(b compute.Backend) (outputs []any, sums int) {
			p, outputs, inputs := program(b)
			defer p.Close()
			if err := p.Run(outputs, inputs); err != nil {
				t.Fatal(err)
			}
			for _, node := range p.Graph().Nodes() {
				if node.Type() == graph.NodeTypeReduceSum && node.DType() == dtypes.Float32 {
					sums++
				}
			}
			return outputs, sums
		}
		here, none := run(device)
		there, some := run(gpu{device})
		if none != 0 || some == 0 {
			t.Errorf("%s: %d plain sums on a CPU, %d on a GPU", name, none, some)
		}
		for i := range here {
			a, b := here[i].([]float32), there[i].([]float32)
			for j := range a {
				if d := math.Abs(float64(a[j] - b[j])); d > 1e-3*(1+math.Abs(float64(a[j]))) {
					t.Fatalf("%s: output %d, element %d: %v on a CPU, %v on a GPU", name, i, j, a[j], b[j])
				}
			}
		}
	}
}
