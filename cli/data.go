package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"evenweave"
	"evenweave/internal/guard"
	"evenweave/internal/job"
	"evenweave/internal/regular"
	"evenweave/internal/sheet"
	"evenweave/internal/terminal"
)

// dataset is a part of the task's data as `data` prints it. Classes, pictures and files are those that the data show.
type dataset struct {
	Event   string       `json:"event"`
	Time    time.Time    `json:"time"`
	Set     string       `json:"set"` // train, held_out or test
	Samples int          `json:"samples"`
	Digest  string       `json:"digest"`
	Classes []classCount `json:"classes,omitempty"`
	Files   []string     `json:"files,omitempty"`

	data evenweave.Data
}

type classCount struct {
	Name    string `json:"name"`
	Samples int    `json:"samples"`
}

func describe(name string, data evenweave.Data) dataset {
	d := dataset{Event: "data", Time: time.Now(), Set: name, Samples: data.Len(), Digest: job.Clean(data.Digest()),
		data: data}
	if l, ok := data.(evenweave.Located); ok {
		for _, f := range l.Files() {
			if whole, err := filepath.Abs(f); err == nil {
				f = whole
			}
			d.Files = append(d.Files, job.Clean(f))
		}
	}
	if c, ok := data.(evenweave.Classed); ok {
		for _, name := range c.Classes() {
			d.Classes = append(d.Classes, classCount{Name: job.Clean(name)})
		}
		for i := range data.Len() * min(1, len(d.Classes)) {
			if class := c.Class(i); class >= 0 && class < len(d.Classes) {
				d.Classes[class].Samples++
			}
		}
	}
	return d
}

const (
	barWidth  = 30 // of the largest class
	mostFiles = 12 // what people see of a path
)

func (d dataset) show(w io.Writer) error {
	var text strings.Builder
	fmt.Fprintf(&text, "%-9s %8d samples  %s\n", d.Set, d.Samples, d.Digest)
	for _, f := range d.Files[:min(len(d.Files), mostFiles)] {
		fmt.Fprintf(&text, "          %s\n", f)
	}
	if more := len(d.Files) - mostFiles; more > 0 {
		fmt.Fprintf(&text, "          and %d more\n", more)
	}
	widest, largest := 0, 1
	for _, c := range d.Classes {
		widest, largest = max(widest, len([]rune(c.Name))), max(largest, c.Samples)
	}
	for _, c := range d.Classes {
		fmt.Fprintf(&text, "  %-*s %8d %5.1f%% %s\n", widest, c.Name, c.Samples, 100*float64(c.Samples)/
			float64(max(1, d.Samples)), strings.Repeat("█", (barWidth*c.Samples+largest/2)/largest))
	}
	_, err := io.WriteString(w, text.String())
	return err
}

const (
	sheetRows    = 40 // classes, at most
	sheetColumns = 10
)

// sample draws the first samples of each class, or the first samples where there are no classes; no rows where the data
// have no pictures.
func sample(data evenweave.Data) (rows []sheet.Row, err error) {
	p, ok := data.(evenweave.Pictured)
	if !ok {
		return nil, nil
	}
	rows = make([]sheet.Row, sheetColumns)
	place := func(i int) int { return i / sheetColumns % sheetColumns }
	if c, ok := data.(evenweave.Classed); ok && len(c.Classes()) > 0 {
		names := c.Classes()
		rows, place = make([]sheet.Row, min(len(names), sheetRows)), c.Class
		for i := range rows {
			rows[i].Name = job.Clean(names[i])
		}
	}
	for i, missing := 0, len(rows)*sheetColumns; i < data.Len() && missing > 0; i++ {
		at := place(i)
		if at < 0 || at >= len(rows) || len(rows[at].Tiles) == sheetColumns {
			continue
		}
		m, err := p.Picture(i)
		if err != nil {
			return nil, fmt.Errorf("sample %d: %w", i, err)
		}
		if m != nil {
			rows[at].Tiles = append(rows[at].Tiles, sheet.Tile{Picture: m})
			missing--
		}
	}
	return slices.DeleteFunc(rows, func(r sheet.Row) bool { return len(r.Tiles) == 0 }), nil
}

// dataCommand is the command that opens the task's data and says what they are.
func (p *program) dataCommand() *cobra.Command {
	var dir, pngFile, inline string
	cmd := &cobra.Command{
		Use: "data", Short: "Open the task's data, check them and show what they are", Args: noArgs,
		Long: `Prints the number of samples of each part, its digest, where its files lie and how many samples each class has;
draws samples of each class, in terminals that can show pictures, and as a file with --png.`,
	}
	dataFlag(cmd.Flags(), &dir)
	p.optionFlags(cmd.Flags(), everyOption)
	output := outputFlag(cmd)
	cmd.Flags().StringVar(&pngFile, "png", "", "file for a picture of samples")
	kinds := []string{"auto"}
	for _, k := range terminal.Kinds() {
		kinds = append(kinds, string(k))
	}
	chosen(cmd.Flags(), &inline, "inline", "auto",
		"how the terminal shows pictures: auto, kitty, iterm2, sixel, blocks or none", kinds...)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := p.validate(); err != nil {
			return err
		}
		sets, err := guard.Data(p.task, dir)
		if err != nil {
			return err
		}
		for _, set := range []struct {
			name string
			data evenweave.Data
		}{{"train", sets.Train}, {"held_out", sets.HeldOut}, {"test", sets.Test}} {
			if set.data == nil {
				continue
			}
			if d := describe(set.name, set.data); *output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(d)
			} else {
				err = d.show(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
		}
		return p.showSamples(cmd.OutOrStdout(), sets.Train, inlineKind(inline, *output), pngFile)
	}
	return cmd
}

// showSamples draws samples where they are wanted.
func (p *program) showSamples(out io.Writer, data evenweave.Data, kind terminal.Kind, pngFile string) error {
	if kind == terminal.None && pngFile == "" {
		return nil
	}
	rows, err := sample(data)
	if err != nil {
		return err
	}
	if len(rows) == 0 {
		if pngFile != "" {
			return fmt.Errorf("--png: the data of task %q have no pictures", p.task.Name)
		}
		return nil
	}
	m := sheet.Draw(rows)
	if pngFile != "" {
		err = writePNG(pngFile, m)
	}
	return errors.Join(err, terminal.Show(out, m, kind, terminal.SizeOf(os.Stdout)))
}

// inlineKind is what --inline asks for. Pictures are for people at a terminal.
func inlineKind(flag, output string) terminal.Kind {
	switch {
	case flag != "auto":
		return terminal.Kind(flag)
	case output != "text" || !drawable(os.Stdout, os.Getenv("TERM")):
		return terminal.None
	}
	return askedKind(terminal.Detect(os.Getenv))
}

// askedKind asks the terminal if its variables promise no more than blocks.
func askedKind(promised terminal.Kind) terminal.Kind {
	if promised != terminal.Blocks && promised != terminal.None {
		return promised
	}
	tty, err := terminal.Own()
	if err != nil {
		return promised
	}
	defer tty.Close()
	if terminal.ShowsSixel(tty, time.Second) {
		return terminal.Sixel
	}
	return promised
}

func writePNG(path string, m image.Image) error {
	return regular.ReplaceBy(path, func(w io.Writer) error { return png.Encode(w, m) })
}

// drawRows implements Invocation.Draw.
func drawRows(path string, galleries []evenweave.Gallery) error {
	return writePNG(path, sheet.Draw(rowsOf(galleries)))
}

// rowsOf are the pictures of galleries, so many in a row that a person can look at it.
func rowsOf(galleries []evenweave.Gallery) (rows []sheet.Row) {
	for _, g := range galleries {
		row := sheet.Row{Name: g.Title, Full: g.Charts}
		for _, p := range g.Pictures {
			if len(row.Tiles) == sheetColumns {
				rows, row = append(rows, row), sheet.Row{Full: g.Charts}
			}
			row.Tiles = append(row.Tiles, sheet.Tile{Picture: p.Image, Caption: p.Caption})
		}
		rows = append(rows, row)
	}
	return rows
}
