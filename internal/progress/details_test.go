package progress

import (
	"bytes"
	"encoding/json"
	"fmt"
	"image"
	"image/png"
	"math"
	"strings"
	"testing"

	"evenweave"
)

func file(t *testing.T, width, height int) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewGray(image.Rect(0, 0, width, height))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func grid(rows, columns int, value float64) evenweave.Table {
	t := evenweave.Table{Title: "grid", Shaded: true, Columns: make([]string, columns+1)}
	for range rows {
		r := evenweave.Row{Cells: make([]float64, columns)}
		for i := range r.Cells {
			r.Cells[i] = value
		}
		t.Rows = append(t.Rows, r)
	}
	return t
}

// Whatever a task or a file holds, views get no more than the bounds, numbers that JSON can hold, and printable text.
func TestDetailsAreBounded(t *testing.T) {
	pictures := func(n int, data []byte) Gallery {
		return Gallery{Title: "g", Pictures: bytesOf(n, data)}
	}
	good := file(t, 28, 28)
	ragged := grid(2, 2, 1)
	ragged.Rows[1].Cells = ragged.Rows[1].Cells[:1]
	for name, c := range map[string]struct {
		in                        Details
		tables, pictures, leftOut int
	}{
		"nothing": {},
		"all": {Details{Tables: []evenweave.Table{grid(10, 10, 3)}, Galleries: []Gallery{pictures(24, good)}}, 1,
			24, 0},
		"largest": {Details{Tables: []evenweave.Table{grid(64, 64, 0)}, Galleries: []Gallery{pictures(64, good)}}, 1,
			64, 0},
		"many tables": {Details{Tables: []evenweave.Table{grid(1, 1, 1), grid(1, 1, 1), grid(1, 1, 1), grid(1, 1, 1),
			grid(1, 1, 1), grid(1, 1, 1)}}, 4, 0, 2},
		"rows": {Details{Tables: []evenweave.Table{grid(65, 2, 1), grid(2, 65, 1), grid(0, 2, 1), grid(2, 0, 1)}},
			0, 0, 4},
		"cells":     {Details{Tables: []evenweave.Table{ragged, grid(1, 1, math.NaN()), grid(1, 1, -1)}}, 0, 0, 3},
		"pictures":  {Details{Galleries: []Gallery{pictures(40, good), pictures(40, good)}}, 0, 64, 1},
		"galleries": {Details{Galleries: make([]Gallery, 9)}, 0, 0, 5},
		"no PNG": {Details{Galleries: []Gallery{pictures(3, []byte("<svg onload=alert(1)>")), pictures(1, nil)}}, 0,
			0, 2},
		"wide":  {Details{Galleries: []Gallery{pictures(1, file(t, 257, 1))}}, 0, 0, 1},
		"bytes": {Details{Galleries: []Gallery{pictures(3, append(good, make([]byte, 200<<10)...))}}, 0, 2, 1},
	} {
		out, leftOut := c.in.Bounded()
		n := 0
		for _, g := range out.Galleries {
			n += len(g.Pictures)
		}
		if len(out.Tables) != c.tables || n != c.pictures || len(leftOut) != c.leftOut {
			t.Errorf("%s: %d tables, %d pictures, left out %q", name, len(out.Tables), n, leftOut)
		}
		data, err := json.Marshal(out)
		if err != nil || len(data) > 1<<20 {
			t.Errorf("%s: %d bytes, %v", name, len(data), err)
		}
	}
	long := strings.Repeat("x\x1b[2J\u202e", 1000)
	out, _ := Details{Tables: []evenweave.Table{{Title: long, About: long, Columns: []string{long, long},
		Rows: []evenweave.Row{{Name: long, Cells: []float64{1}}}}}, Galleries: []Gallery{{Title: long, About: long,
		Pictures: []Picture{{good, long}}}}}.Bounded()
	if text := fmt.Sprint(out.Tables, out.Galleries[0].Title, out.Galleries[0].About,
		out.Galleries[0].Pictures[0].Caption); strings.ContainsAny(text, "\x1b\u202e") || len(text) > 8*1024 {
		t.Errorf("%q", text)
	}
}

func bytesOf(n int, data []byte) (all []Picture) {
	for range n {
		all = append(all, Picture{PNG: data})
	}
	return all
}
