package evaluate

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"html/template"
	"image"
	"image/png"
	"io"
)

// WriteHTML writes r as one page that needs no other file: figures, classes, the confusion matrix, calibration and the
// mistakes, whose pictures it asks for by their place in r.Mistakes. about says what was measured.
func (r Result) WriteHTML(w io.Writer, about string, mistake func(i int) image.Image) error {
	type shown struct {
		Mistake
		Source template.URL
	}
	page := struct {
		Result
		About string
		Shown []shown
	}{Result: r, About: about}
	for i, m := range r.Mistakes {
		var b bytes.Buffer
		if err := png.Encode(&b, mistake(i)); err != nil {
			return err
		}
		page.Shown = append(page.Shown, shown{m,
			template.URL("data:image/png;base64," + base64.StdEncoding.EncodeToString(b.Bytes()))})
	}
	t := template.Must(template.New("").Funcs(template.FuncMap{
		"percent": func(x float64) string { return fmt.Sprintf("%.1f%%", 100*x) },
		// blue alone, from white on: it needs no second color, and is seen whatever the eye
		"shade": func(n, l int) template.CSS {
			return template.CSS(fmt.Sprintf("background:rgb(0 114 178/%.2f)",
				0.85*ratio(n, max(1, r.Classes[l].Support))))
		},
	}).Parse(htmlPage))
	return t.Execute(w, page)
}

const htmlPage = `<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Evaluation</title>
<style>
:root { color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }
body { max-width: 60rem; margin: 1rem auto; padding: 0 1rem }
div { overflow-x: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .5rem; text-align: right }
th:first-child { text-align: left }
figure { display: inline-block; width: 8rem; margin: .3rem; vertical-align: top }
img { width: 84px; image-rendering: pixelated }
</style>
<h1>{{percent .Accuracy}} of {{.Images}} images</h1>
<p>{{.About}}. Loss {{printf "%.4f" .Loss}} nats, macro F1 {{percent .MacroF1}}, expected calibration error {{percent .ECE}}.</p>
<h2>Classes</h2>
<div><table><tr><th>class<th>precision<th>recall<th>F1<th>images</tr>
{{range .Classes}}<tr><th>{{.Name}}<td>{{percent .Precision}}<td>{{percent .Recall}}<td>{{percent .F1}}<td>{{.Support}}</tr>
{{end}}</table></div>
<h2>Confusion matrix</h2>
<p>How many images of the class of a row were taken for the class of a column.</p>
<div><table><tr><th>{{range .Classes}}<th>{{.Name}}{{end}}</tr>
{{range $l, $row := .Confusion}}<tr><th>{{(index $.Classes $l).Name}}{{range $row}}<td style="{{shade . $l}}">{{.}}{{end}}</tr>
{{end}}</table></div>
<h2>Calibration</h2>
<p>How often the network was right when it was that sure.</p>
<div><table><tr><th>confidence<th>mean<th>right<th>images</tr>
{{range .Bins}}<tr><th>{{percent .From}} to {{percent .To}}<td>{{percent .Confidence}}<td>{{percent .Accuracy}}<td>{{.Images}}</tr>
{{end}}</table></div>
<h2>Most confident mistakes</h2>
{{range .Shown}}<figure><img src="{{.Source}}" alt=""><figcaption>{{(index $.Classes .Label).Name}}, taken for
{{(index $.Classes .Predicted).Name}} ({{percent .Probability}}), image {{.Image}}</figcaption></figure>
{{end}}</html>
`
