package sheet

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image/png"
	"io"
	"math"
	"strconv"
	"strings"

	"evenweave"
)

// WritePage writes what an evaluation found as one page of HTML that needs no other file. about says what was measured.
func WritePage(w io.Writer, about string, figures []evenweave.Figure, d evenweave.Details) error {
	type picture struct {
		Caption string
		Source  template.URL
	}
	type gallery struct {
		evenweave.Gallery
		Shown []picture
	}
	page := struct {
		About     string
		Figures   []evenweave.Figure
		Tables    []evenweave.Table
		Galleries []gallery
	}{about, figures, d.Tables, nil}
	for _, g := range d.Galleries {
		shown := gallery{Gallery: g}
		for _, p := range g.Pictures {
			var b bytes.Buffer
			if err := png.Encode(&b, p.Image); err != nil {
				return fmt.Errorf("%s, %s: %w", g.Title, p.Caption, err)
			}
			shown.Shown = append(shown.Shown, picture{p.Caption,
				template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes()))})
		}
		page.Galleries = append(page.Galleries, shown)
	}
	functions := template.FuncMap{"number": number, "cell": cell, "shade": shade}
	t := template.Must(template.New("").Funcs(functions).Parse(htmlPage))
	return t.Execute(w, page)
}

// number is at most four digits behind the point.
func number(x float64) string { return strconv.FormatFloat(math.Round(x*1e4)/1e4, 'f', -1, 64) }

// cell is a number with as many digits behind the point as another of its column needs.
func cell(t evenweave.Table, column int, x float64) string {
	digits := 0
	for _, r := range t.Rows {
		if column < len(r.Cells) {
			_, behind, _ := strings.Cut(number(r.Cells[column]), ".")
			digits = max(digits, len(behind))
		}
	}
	return strconv.FormatFloat(x, 'f', digits, 64)
}

// shade is the background of a cell: blue, and the stronger the larger the value. One color is enough, and the
// color-blind see it.
func shade(t evenweave.Table, x float64) template.CSS {
	most := 0.0
	for _, r := range t.Rows {
		for _, c := range r.Cells {
			most = max(most, c)
		}
	}
	if !t.Shaded || !(x > 0) {
		return ""
	}
	return template.CSS(fmt.Sprintf("background:rgb(0 114 178/%.2f)", 0.5*math.Sqrt(x/most)))
}

const htmlPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation</title>
<style>
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { max-width: 60rem; margin: 1rem auto; padding: 0 1rem; overflow-wrap: anywhere }
div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .5rem; text-align: right; overflow-wrap: normal }
th:first-child { text-align: left }
figure { display: inline-block; width: 8rem; margin: .3rem; vertical-align: top }
img { width: 84px; image-rendering: pixelated }
.charts figure { width: auto }
.charts img { width: auto; max-width: 100%; image-rendering: auto; background: white }
</style>
<h1>Evaluation</h1>
<p>{{.About}}</p>
<div><table>{{range .Figures}}<tr><th>test {{.Name}}<td>{{number .Value}}</tr>
{{end}}</table></div>
{{range $t := .Tables}}<h2>{{.Title}}</h2>
<p>{{.About}}</p>
<div tabindex="0" role="region" aria-label="{{.Title}}"><table><tr>{{range .Columns}}<th scope="col">{{.}}{{end}}</tr>
{{range .Rows}}<tr><th scope="row">{{.Name}}{{range $i, $x := .Cells}}<td style="{{shade $t .}}">{{cell $t $i .}}{{end}}</tr>
{{end}}</table></div>
{{end}}{{range .Galleries}}<h2>{{.Title}}</h2>
<p>{{.About}}</p>
<div{{if .Charts}} class="charts"{{end}}>{{range .Shown}}<figure><img src="{{.Source}}" alt=""><figcaption>{{.Caption}}</figcaption></figure>
{{end}}</div>
{{end}}</html>
`
