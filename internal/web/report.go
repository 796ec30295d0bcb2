package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
)

//go:embed static
var files embed.FS

// scripts in the order in which they are joined.
var scripts = []string{"data.js", "chart.js", "curves.js", "timeline.js", "tables.js", "details.js", "page.js"}

func file(name string) []byte {
	data, err := files.ReadFile("static/" + name)
	if err != nil {
		panic(err) // it is embedded
	}
	return data
}

func style() []byte { return file("page.css") }

func script() []byte {
	var all bytes.Buffer
	all.WriteString("\"use strict\";\n")
	for _, name := range scripts {
		all.Write(file(name))
	}
	return all.Bytes()
}

// document puts the parts that differ into the page.
func document(head, end string) []byte {
	page := bytes.Replace(file("page.html"), []byte("<!-- head -->"), []byte(head), 1)
	return bytes.Replace(page, []byte("<!-- end -->"), []byte(end), 1)
}

func livePage() []byte {
	return document(`<link rel="stylesheet" href="page.css">`, `<script src="page.js"></script>`)
}

// WriteReport writes the page as it is now: one file that needs no server, no network and no other file.
func (p *Page) WriteReport(w io.Writer) error {
	p.mu.Lock()
	u, _ := p.history.since(cursor{})
	p.mu.Unlock()
	var data bytes.Buffer
	encoder := json.NewEncoder(&data)
	encoder.SetEscapeHTML(true) // so that no text ends the element that holds it
	if err := encoder.Encode(u); err != nil {
		return fmt.Errorf("writing the report: %w", err)
	}
	head := fmt.Sprintf("<meta http-equiv=\"Content-Security-Policy\" content=\"%s\">\n<style>%s</style>",
		policy(hash(script()), hash(style())), style())
	end := fmt.Sprintf("<script type=\"application/json\" id=\"data\">%s</script>\n<script>%s</script>", data.Bytes(),
		script())
	_, err := w.Write(document(head, end))
	return err
}

// hash allows one inline text and no other.
func hash(text []byte) string {
	sum := sha256.Sum256(text)
	return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
}
