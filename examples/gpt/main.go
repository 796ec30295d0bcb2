// Command gpt trains a transformer on bytes: by default on the source text of Go's standard library, which every Go
// installation has. The network is from GoMLX's zoo, and nothing here knows that there are workers. Try
// `go run . train --workers 3`, then `go run . generate`.
package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/ml/model"
	"github.com/gomlx/gomlx/ml/train/loss"
	"github.com/gomlx/gomlx/ml/train/metric"
	"github.com/gomlx/gomlx/ml/zoo/transformer"

	"evenweave"
	"evenweave/cli"
	"evenweave/dataset"
	"evenweave/gomlx"
)

const vocabulary = 256 // bytes

type options struct {
	Layers  int          `flag:"layers" help:"blocks of attention and two dense layers" min:"1"`
	Width   int          `flag:"width" help:"numbers that stand for a byte, between blocks" min:"1"`
	Heads   int          `flag:"heads" help:"heads of attention; must divide the width" min:"1"`
	Context int          `flag:"context" help:"bytes that the network sees" min:"1"`
	Match   string       `flag:"match" help:"names of the files that are text"`
	Params  gomlx.Params `flag:"set" help:"hyperparameters of GoMLX"`
	gomlx.Tuning
}

// Validate implements evenweave.Validator.
func (o *options) Validate() error {
	if o.Width%o.Heads != 0 {
		return errors.New("--heads must divide --width")
	}
	return nil
}

// data are windows of text; the last twentieth is the test part, of which 512 windows from everywhere are taken.
func (o *options) data(dir string) (sets evenweave.Sets, err error) {
	if dir == "" {
		root, err := exec.Command("go", "env", "GOROOT").Output()
		if err != nil {
			return sets,
				errors.New("there is no `go` whose standard library could be read: name a directory with --data")
		}
		dir = filepath.Join(strings.TrimSpace(string(root)), "src")
	}
	sets, err = dataset.Text(dir, dataset.Windows{Length: o.Context, Test: 0.05, Match: o.Match})
	if err == nil {
		sets.Train = dataset.Prefetched(sets.Train, 64)
		sets.Test, err = dataset.Range(dataset.Shuffle(sets.Test, 1), 0, min(512, sets.Test.Len()))
	}
	return sets, err
}

// network gives, for each byte of a window, the logits of the byte that follows.
func (o *options) network(scope *model.Scope, text *graph.Node) *graph.Node {
	return transformer.New(scope).WithVocabSize(vocabulary).WithNumLayers(o.Layers).WithEmbedDim(o.Width).
		WithNumHeads(o.Heads).WithHeadDim(o.Width/o.Heads).WithRoPE(10000).Logits(text, transformer.CallOptions{})
}

func (o *options) model(setup evenweave.Setup) (evenweave.Model, error) {
	return gomlx.New(setup, gomlx.Config{
		Model: o.network, Loss: loss.SparseCategoricalCrossEntropyLogits, Params: o.Params, ClipNorm: 1,
		Tuning:  o.Tuning,
		Inputs:  []shapes.Shape{shapes.Make(dtypes.Int32, o.Context)},
		Labels:  []shapes.Shape{shapes.Make(dtypes.Int32, o.Context, 1)},
		Metrics: []metric.Interface{gomlx.Perplexity()},
	})
}

func task() *evenweave.Task {
	o := &options{Layers: 2, Width: 128, Heads: 2, Context: 128, Match: "*.go", Params: gomlx.Params{
		"optimizer": "adamw", "learning_rate": 0.001, "adam_weight_decay": 0.01, "transformer_dropout": 0.0,
		"transformer_normalization": "layer", "transformer_activation": "gelu"}}
	return &evenweave.Task{
		Name: "gpt", About: "a transformer on the bytes of a text", Options: o,
		Data: o.data, Model: o.model, Backends: gomlx.Backends(),
		Defaults: map[string]string{"steps": "400", "global-batch": "64", "micro-batch": "8"},
		Commands: []evenweave.Command{generate()},
	}
}

// generate is the command that goes on with a text.
func generate() evenweave.Command {
	s := &gomlx.Sampling{Tokens: 400, Temperature: 0.7, Seed: 1}
	return evenweave.Command{Name: "generate", Args: "[TEXT]", About: "Go on with a text", Checkpoint: true, Options: s,
		Run: func(ctx context.Context, c *evenweave.Invocation) error {
			var tokens []int32
			for _, b := range []byte(cmp.Or(strings.Join(c.Args, ""), "// Copyright")) {
				tokens = append(tokens, int32(b))
			}
			tokens, err := c.Model.(*gomlx.Model).Continue(ctx, tokens, *s)
			if err != nil {
				return err
			}
			text := make([]byte, len(tokens))
			for i, token := range tokens {
				text[i] = byte(token)
			}
			_, err = fmt.Fprintf(c.Stdout, "%s\n", text)
			return err
		}}
}

func main() { cli.Main(task()) }
