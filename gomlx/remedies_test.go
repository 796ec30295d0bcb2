package gomlx

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// remedy is what keeps a trap of GoMLX from training something else in silence: a piece of this package's text. Without
// it, or with what is put in its place, the test fails.
type remedy struct{ trap, text, without, test string }

func remedies() []remedy {
	return []remedy{
		{"a loader brings variables in another order in each process", "inOrder(variables)\n", "\n",
			"TestTheOrderIsByPath"},
		{"directories of checkpoints are read in a random order", "slices.Sorted(maps.Keys(values))",
			"slices.Collect(maps.Keys(values))", "TestTuning"},
		{"a seed that is no int64 is taken as 0", "model.ParamInitialSeed, int64(seed))",
			"model.ParamInitialSeed, int(seed))", "TestInitialValuesAreTheSeeds"},
		{"without a seed initial values are random", "b.store.SetParam(model.ParamInitialSeed, int64(seed))", "",
			"TestInitialValuesAreTheSeeds"},
		{"the generator's state would be trained, through float32: one mask for ever",
			"v.SetTrainable(false) // the model may have made all variables trainable", "",
			"TestTheGeneratorIsNotTrained"},
		{"the generator's state is an argument: it must be the key",
			"map[string][]byte{generatorPath(): generatorState(b.Key)}",
			"map[string][]byte{generatorPath(): generatorState(0)}", "TestMasksAreTheKeys"},
		{"an exported generator's state is trained after it is loaded",
			"return store, nil\n}\n\n// Backend", "return store, store.ResetRNGState()\n}\n\n// Backend",
			"TestCheckpointsOfGoMLX"},
		{"all variables of a store are trainable", "SetTrainable(t.Role == evenweave.Trained)",
			"SetTrainable(t.Role != evenweave.Averaged)", "TestCheckpointsOfGoMLX"},
		{"schedules are in the model's function",
			"batched(n, s)))\n\t}\n\tb.function(b.store.RootScope(), b.config.Spec, inputs)",
			"batched(n, s)))\n\t}", "TestStepsAreTrainers/cosine_on_go"},
		{"regularizers are hooks of a step: L1 makes no zeros without them", "train.ExecPerStepUpdateGraphFn(f.graph)",
			"", "TestStepsAreTrainers/L1_on_go"},
		{"schedules ask for the last step, which only GoMLX's loop sets", "m.setup.TotalSteps > 0 {",
			"m.setup.TotalSteps > 1<<60 {", "TestTheLastStepIsTheJobs"},
		{"what micro-batches change alike must be changed by the step, once", "batched(n, s)))\n\t}\n\tb.function(" +
			"b.store.RootScope(), b.config.Spec, inputs)", "batched(n, s)))\n\t}", "TestOnceAStep"},
		{"what micro-batches change alike has no mean: integers would be refused",
			"dependsOn(v.NodeValue(f.graph), f.batch, seen)",
			"(true || dependsOn(v.NodeValue(f.graph), f.batch, seen))",
			"TestRoles"},
		{"what a loop's closure captures is not among a node's inputs",
			"slices.Contains([]graph.NodeType{graph.NodeTypeWhile, graph.NodeTypeIf, " +
				"graph.NodeTypeCall},\n\t\tn.Type())",
			"slices.Contains([]graph.NodeType{}, n.Type())", "TestLoopsMayDependOnSamples"},
		{"averages differ between micro-batches: the mean of their changes counts",
			"v.of.SetNodeValue(graph.Add(old, b.mean(f, v)))", "_ = old", "TestStepsAreTrainers/batch_norm_on_xla"},
		{"averages are changed by the zeros that the update is built on",
			"if p := f.graph.GetParameterByName(v.path); p != nil {", "if p := old; p == nil {",
			"TestStepsAreTrainers/batch_norm_on_xla"},
		{"padding would get into the statistics of batch normalisation", "if w == 1 {", "if true {",
			"TestFewerSamples"},
		{"a loss is a mean: it counts as often as it has samples",
			"graph.Mul(graph.ConvertDType(f.loss, dtypes.Float32), rounded)",
			"graph.ConvertDType(f.loss, dtypes.Float32)", "TestLossesAddUp"},
		{"an evaluation uses running averages, and no dropout", "b.forward(\"evaluation\", n, false)",
			"b.forward(\"evaluation\", n, true)", "TestEvaluate"},
		{"metrics keep sums between batches of an evaluation",
			"run.values[v.Path()] = bytesOf(value)\n\t}\n\tif run.shown",
			"}\n\tif run.shown", "TestEvaluate"},
		{"an optimizer may take a loss alone", "loss = graph.Add(loss, graph.ConvertDType(product, of.loss))",
			"_ = product", "TestStepsAreTrainers/no_gradients_on_go"},
		{"a trainable integer has no gradient", "case v.Trainable && !v.DType().IsFloat():", "case false:",
			"TestRefused"},
		{"a model may change what is trained", "case v.Trainable && changed:", "case false:", "TestRefused"},
		{"an integer has no mean", "case differs && !v.DType().IsFloat():", "case false:", "TestRefused"},
		{"the go backend lacks operations", "compute.IsNotImplemented(err) && name == \"go\"",
			"compute.IsNotImplemented(err) && name == \"\"", "TestRefused"},
		{"gradients are of a parameter's type", "graph.ConvertDType(change, dtypes.Float32))\n\t\t}", "change)\n\t\t}",
			"TestTypes"},
		{"the mean is float32, a parameter may not be", "return graph.ConvertDType(p, v.of.DType())", "return p",
			"TestTypes"},
		{"layers make what is frozen trainable again", "if frozen[i] {",
			"if frozen[i] && !b.frozen[v.Path()] {", "TestFreeze"},
		{"a program's result may lie where another tensor does", "&& !inUse[unsafe.SliceData(bytes)]", "",
			"TestMemoryIsTakenOnce"},
		{"a device apart does not see what the host writes", "m.buffer = nil\n\treturn old.Finalize()\n}\n\n// take",
			"_ = old\n\treturn nil\n}\n\n// take", "TestDevicesApart"},
		{"weights that are no whole numbers would be cut off",
			"weight != float64(totals[1])*parts && !m.config.Fractions",
			"false", "TestWeights"},
		{"a mean of no weight is NaN", "if weight == 0 { // a mean of nothing may be NaN", "if false {", "TestWeights"},
		{"pairs are of one micro-batch", "for _, s := range []string{notice, config.notice()} {",
			"for _, s := range []string{notice} {", "TestLossesOverPairs"},
	}
}

// TestRemedies finds each remedy in its place. With EVENWEAVE_TEST_REMEDIES=1 it takes each out and sees the test fail:
// that takes minutes, for the package is built once more for each.
func TestRemedies(t *testing.T) {
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	sources := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(name, "_test.go") {
			sources[name] = string(text)
		}
	}
	for _, r := range remedies() {
		t.Run(r.trap, func(t *testing.T) {
			var found []string
			for name, text := range sources {
				for range strings.Count(text, r.text) {
					found = append(found, name)
				}
			}
			if len(found) != 1 {
				t.Fatalf("%q is in %v: expected it once; has the remedy another form now?", r.text, found)
			}
			if os.Getenv("EVENWEAVE_TEST_REMEDIES") != "" {
				takeOut(t, found[0], strings.Replace(sources[found[0]], r.text, r.without, 1), r.test)
			}
		})
	}
}

// takeOut runs a test on this package with another text of one file.
func takeOut(t *testing.T, name, text, test string) {
	t.Helper()
	dir := t.TempDir()
	here, err := filepath.Abs(name)
	if err != nil {
		t.Fatal(err)
	}
	overlay, err := json.Marshal(map[string]map[string]string{"Replace": {here: filepath.Join(dir, name)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{name: text, "overlay": string(overlay)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pattern := "^" + strings.ReplaceAll(test, "/", "$/^") + "$"
	out, err := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-overlay", filepath.Join(dir, "overlay"),
		"-run",
		pattern, ".").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--- FAIL: "+strings.Split(test, "/")[0]) {
		t.Errorf("%s does not fail without it: %v\n%s", test, err, out)
		return
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "_test.go:") {
			t.Log(test + " fails:" + line)
			break
		}
	}
}
