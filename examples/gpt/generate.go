package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"

	"evenweave"
	"evenweave/dataset"
	"evenweave/gomlx"
)

type sampling struct {
	Bytes       int     `flag:"bytes" help:"length of what is added"`
	Temperature float64 `flag:"temperature" help:"1: as likely as the network says, less: likely bytes more often"`
	Seed        uint64  `flag:"seed" help:"another seed is another text"`
}

// generate is the command that goes on with a text.
func (o *options) generate() evenweave.Command {
	s := &sampling{Bytes: 400, Temperature: 0.7, Seed: 1}
	return evenweave.Command{Name: "generate", Args: "[TEXT]", About: "Go on with a text", Checkpoint: true, Options: s,
		Run: func(ctx context.Context, c *evenweave.Invocation) error {
			text := []byte(cmp.Or(strings.Join(c.Args, ""), "// Copyright"))
			random := evenweave.NewGenerator(s.Seed)
			for range s.Bytes {
				known := text[max(0, len(text)-o.Context):]
				window := make([]int32, o.Context) // the network does not look ahead: zeros at the end change nothing
				for i, b := range known {
					window[i] = int32(b)
				}
				out, err := c.Model.(*gomlx.Model).Predict(dataset.Of(window, o.Context))
				if err := errors.Join(err, context.Cause(ctx)); err != nil {
					return err
				}
				logits := dataset.Values[float32](out[0])[(len(known)-1)*vocabulary:][:vocabulary]
				text = append(text, byte(gomlx.Draw(logits, s.Temperature, random)))
			}
			_, err := fmt.Fprintf(c.Stdout, "%s\n", text)
			return err
		}}
}
