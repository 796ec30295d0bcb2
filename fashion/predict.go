package fashion

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"evenweave"
	"evenweave/dataset"
	"evenweave/fashion/cnn"
	"evenweave/fashion/evaluate"
	"evenweave/fashion/fashionmnist"
)

// predictOptions are the flags of `predict`.
type predictOptions struct {
	Top      int    `flag:"top" help:"classes to print for each picture"`
	Polarity string `flag:"polarity" help:"how to read pictures: auto, dark-on-light (as photographs are) or light-on-dark"`
}

// Validate implements evenweave.Validator.
func (o *predictOptions) Validate() error {
	all := []evaluate.Polarity{evaluate.Auto, evaluate.DarkOnLight, evaluate.LightOnDark}
	switch {
	case o.Top < 1 || o.Top > cnn.MaxClasses:
		return fmt.Errorf("--top %d: expected 1 to %d", o.Top, cnn.MaxClasses)
	case !slices.Contains(all, evaluate.Polarity(o.Polarity)):
		return fmt.Errorf("--polarity %q: expected one of %v", o.Polarity, all)
	}
	return nil
}

func predictCommand() evenweave.Command {
	o := &predictOptions{Top: fashionmnist.NumClasses, Polarity: string(evaluate.Auto)}
	return evenweave.Command{
		Name: "predict", Args: "IMAGE...", About: "Classify pictures (PNG, JPEG, GIF, WebP) with a checkpoint",
		Checkpoint: true, Options: o, Run: o.run,
		Long: `Prints how likely each class is, for photographs, drawings and pictures of the set; "-" is standard input.
Each is turned upright, cut out of its background and made like the set's pictures; what is printed says how it was read.
A picture that cannot be read is named at the end, with exit code 1; the others are classified.`,
	}
}

// prediction is a line of -o json.
type prediction struct {
	Event   string            `json:"event"`
	Time    time.Time         `json:"time"`
	Image   string            `json:"image"`
	Error   string            `json:"error,omitempty"` // then there is nothing else
	Read    *evaluate.Reading `json:"read,omitempty"`
	Guesses []evaluate.Guess  `json:"guesses,omitempty"` // of all classes, the likeliest first
}

func (o *predictOptions) run(ctx context.Context, c *evenweave.Invocation) error {
	var failed error // one bad picture does not keep the others from being classified
	for _, name := range c.Args {
		read, guesses, err := o.guess(ctx, c, name)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line := prediction{Event: "prediction", Time: time.Now(), Image: name}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", name, err))
			line.Error = err.Error()
		} else {
			line.Read, line.Guesses = &read, guesses
		}
		switch {
		case c.JSON:
			err = json.NewEncoder(c.Stdout).Encode(line)
		case err == nil:
			_, err = io.WriteString(c.Stdout, o.text(name, read, guesses))
		default:
			err = nil // it is named at the end
		}
		if err != nil {
			return errors.Join(failed, err)
		}
	}
	return failed
}

// text is what people see of a prediction.
func (o *predictOptions) text(name string, read evaluate.Reading, guesses []evaluate.Guess) string {
	if quoted := strconv.Quote(name); quoted != `"`+name+`"` { // what a terminal might obey
		name = quoted
	}
	text := fmt.Sprintf("%s: %s %.1f%%; %s\n", name, guesses[0].Name, 100*guesses[0].Probability, read)
	if o.Top > 1 {
		text += evaluate.FormatGuesses(guesses[:min(o.Top, len(guesses))])
	}
	return text
}

func (o *predictOptions) guess(ctx context.Context, c *evenweave.Invocation, name string) (read evaluate.Reading,
	guesses []evaluate.Guess, err error) {
	from := c.Stdin
	if name != "-" {
		f, err := dataset.Open(name)
		if err != nil {
			return read, nil, err
		}
		defer f.Close()
		from = f
	}
	read, err = evaluate.Decode(ctx, from, evaluate.Polarity(o.Polarity))
	if err != nil {
		return read, nil, err
	}
	network := c.Model.(*network)
	scores := make([]float32, len(network.classes))
	if err := network.Logits(read.Pixels, scores); err != nil {
		return read, nil, err
	}
	guesses, err = evaluate.Top(scores, network.classes, len(scores))
	return read, guesses, err
}
