package web

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"math"
	"reflect"
	"testing"
	"time"

	"evenweave"
	"evenweave/internal/progress"
)

// What the newest evaluation shows is there, also after a restart and in the report; nothing of an older one or of
// another job is.
func TestDetailsAreShown(t *testing.T) {
	dir, c := t.TempDir(), killed()
	c.page.Keep(dir, nil)()
	before, _ := shown(t, c.page)
	d := details(469)
	d.Tables = append(d.Tables, evenweave.Table{Title: "no numbers", Columns: []string{"", "x"},
		Rows: []evenweave.Row{{Cells: []float64{math.NaN()}}}})
	c.page.ObserveDetails(c.now, d)
	c.page.ObserveDetails(c.now, details(100))
	stop := c.page.Keep(dir, nil)
	stop()
	u, data := shown(t, c.page)
	if before.Details != nil || !reflect.DeepEqual(*u.Details, details(469)) {
		t.Errorf("shown %.300s", text(t, u.Details))
	}
	_, seen, err := c.page.since(cursor{})
	c.steps(1, time.Second)
	if more, _, again := c.page.since(seen); errors.Join(err, again) != nil || bytes.Contains(more, []byte("iVBOR")) {
		t.Errorf("details are sent again: %.300s, %v, %v", more, err, again)
	}
	var report bytes.Buffer
	if err := c.page.WriteReport(&report); err != nil || !bytes.Contains(report.Bytes(), []byte("iVBORw0KGgo")) ||
		!bytes.Contains(data, []byte("iVBORw0KGgo")) {
		t.Errorf("the report has no picture: %v", err)
	}
	next := New()
	if err := recall(next, dir, c.metrics); err != nil {
		t.Fatal(err)
	}
	if u, _ := shown(t, next); !reflect.DeepEqual(*u.Details, details(469)) {
		t.Errorf("after a restart: %.300s", text(t, u.Details))
	}
	next.Observe(progress.Record{Time: c.now, Event: progress.Start{UUID: "another job"}})
	if u, _ := shown(t, next); u.Details != nil {
		t.Error("another job shows this one's details")
	}
}

// details are a matrix of ten classes and 24 pictures, as the built-in task gives them.
func details(step int) progress.Details {
	var file bytes.Buffer
	if err := png.Encode(&file, image.NewGray(image.Rect(0, 0, 28, 28))); err != nil {
		panic(err)
	}
	d := progress.Details{Step: step, Epoch: 1, Tables: []evenweave.Table{{Title: "Confusion", Shaded: true,
		Columns: []string{"class"}}}, Galleries: []progress.Gallery{{Title: "Mistakes"}}}
	for i := range 10 {
		d.Tables[0].Columns = append(d.Tables[0].Columns, fmt.Sprint("class ", i))
		d.Tables[0].Rows = append(d.Tables[0].Rows, evenweave.Row{Name: fmt.Sprint("class ", i),
			Cells: make([]float64, 10)})
	}
	for i := range 24 {
		d.Galleries[0].Pictures = append(d.Galleries[0].Pictures, progress.Picture{PNG: file.Bytes(),
			Caption: fmt.Sprint("picture ", i)})
	}
	return d
}

// The page is small, and imports the standard library alone.
func TestSizes(t *testing.T) {
	parts := map[string]int{"page": len(livePage()), "style": len(style()), "script": len(script())}
	sum := 0
	for _, n := range parts {
		sum += n
	}
	t.Logf("the page has %d bytes: %v", sum, parts)
	if sum > 72<<10 {
		t.Errorf("the page has %d bytes, at most 72 KiB: %v", sum, parts)
	}
}
