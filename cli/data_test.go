package cli

import (
	"encoding/json"
	"errors"
	"image"
	"image/png"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"evenweave"
	"evenweave/internal/terminal"
)

// shown is data of three classes, of which the third is rare, and one sample without a class.
type shown struct {
	evenweave.Data
	unreadable bool
}

func (shown) Len() int          { return 100 }
func (shown) Digest() string    { return "digest\x1b" }
func (shown) Classes() []string { return []string{"even", "odd", "rare\x1b[31m", "never"} }
func (shown) Files() []string   { return []string{"/data/file\n2"} }

func (shown) Class(i int) int {
	switch i {
	case 0:
		return -1
	case 99:
		return 2
	}
	return i % 2
}

func (s shown) Picture(i int) (image.Image, error) {
	if s.unreadable {
		return nil, errors.New("a bad block")
	}
	m := image.NewGray(image.Rect(0, 0, 2, 2))
	m.Pix[0] = uint8(i)
	return m, nil
}

func TestDataAreCountedByClass(t *testing.T) {
	var text strings.Builder
	if err := describe("train", shown{}).show(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"train          100 samples", "even           49  49.0%", "odd            49  49.0%",
		"1   1.0%", "never           0   0.0%", "/data/file"} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("%q is missing:\n%s", want, &text)
		}
	}
	if strings.ContainsAny(text.String(), "\x1b") || strings.Count(text.String(), "\n") != 6 {
		t.Errorf("texts of others are not printable:\n%q", text.String())
	}
}

func TestSamplesOfEachClassAreDrawn(t *testing.T) {
	rows, err := sample(shown{})
	if err != nil || len(rows) != 3 || len(rows[0].Tiles) != 10 || len(rows[1].Tiles) != 10 || len(rows[2].Tiles) != 1 {
		t.Fatalf("%v, %v; want ten of two classes, and one", err, rows)
	}
	for i, tile := range rows[1].Tiles {
		if got := tile.Picture.(*image.Gray).Pix[0]; got != uint8(2*i+1) {
			t.Errorf("odd sample %d is sample %d", i, got)
		}
	}
	if _, err := sample(shown{unreadable: true}); err == nil || !strings.Contains(err.Error(),
		"sample 1: a bad block") {
		t.Error(err)
	}
	p := &program{task: tiny()}
	file := filepath.Join(t.TempDir(), "samples.png")
	if err := p.showSamples(nil, shown{}, terminal.None, file); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if m, err := png.Decode(f); err != nil || m.Bounds().Dx() < 640 || m.Bounds().Dy() < 190 {
		t.Errorf("%v: a picture of %v", err, m)
	}
}

func TestDataCommand(t *testing.T) {
	out, err := command(t, "data", "-o", "json", "--points", "70").Output()
	sets := map[string]int{}
	for line := range strings.Lines(string(out)) {
		var d dataset
		if err := json.Unmarshal([]byte(line), &d); err != nil || d.Event != "data" || d.Time.IsZero() ||
			d.Digest == "" {
			t.Errorf("%v: %s", err, line)
		}
		sets[d.Set] = d.Samples
	}
	if err != nil || len(sets) != 2 || sets["train"] != 70 || sets["test"] != 100 {
		t.Errorf("%v: %s", err, out)
	}
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--points", "0"}, exitUsage, "--points"}, {[]string{"--inline", "x"}, exitUsage, "--inline"},
		{[]string{"--png", filepath.Join(t.TempDir(), "x.png")}, exitFailed, "have no pictures"},
	} {
		cmd := command(t, append([]string{"data"}, c.args...)...)
		if out, _ := cmd.CombinedOutput(); cmd.ProcessState.ExitCode() != c.code ||
			!strings.Contains(string(out), c.says) {
			t.Errorf("%v: exit code %d, %s", c.args, cmd.ProcessState.ExitCode(), out)
		}
	}
}
