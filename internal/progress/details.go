package progress

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"time"

	"evenweave"
	"evenweave/internal/job"
)

// Details is what an evaluation shows beside its figures. It is no [Event]: only views show it, and keep the newest.
type Details struct {
	Step      int               `json:"step"`
	Epoch     int               `json:"epoch"`
	Tables    []evenweave.Table `json:"tables,omitempty"`
	Galleries []Gallery         `json:"galleries,omitempty"`
}

// Gallery is labelled pictures.
type Gallery struct {
	Title    string    `json:"title"`
	About    string    `json:"about,omitempty"`
	Pictures []Picture `json:"pictures"`
	Charts   bool      `json:"charts,omitempty"`
}

// Picture is a PNG file and what it shows.
type Picture struct {
	PNG     []byte `json:"png"`
	Caption string `json:"caption"`
}

// DetailsObserver receives the details of evaluations. It must be safe for concurrent use and must not block. It shares
// them and changes nothing.
type DetailsObserver interface {
	ObserveDetails(time.Time, Details)
}

// Bounds of [Details].
const (
	maxTables    = 4
	maxCells     = 64 // in a row, and in a column
	maxGalleries = 4
	MaxPictures  = 64        // of all galleries
	MaxSide      = 256       // of a picture, in pixels
	maxPNG       = 512 << 10 // of all pictures, in bytes
)

// Bounded returns what d shows within the bounds, its texts printable, and names what it leaves out. d is not changed.
func (d Details) Bounded() (out Details, leftOut []string) {
	out.Step, out.Epoch = d.Step, d.Epoch
	without := func(what, title string, err error) {
		leftOut = append(leftOut, fmt.Sprintf("%s %q: %v", what, job.Clean(title), err))
	}
	for _, t := range d.Tables {
		if err := checkTable(t); err != nil {
			without("table", t.Title, err)
		} else if len(out.Tables) == maxTables {
			without("table", t.Title, fmt.Errorf("more than %d tables", maxTables))
		} else {
			out.Tables = append(out.Tables, cleanTable(t))
		}
	}
	pictures, size := 0, 0
	for _, g := range d.Galleries {
		if len(out.Galleries) == maxGalleries {
			without("gallery", g.Title, fmt.Errorf("more than %d galleries", maxGalleries))
			continue
		}
		kept := Gallery{Title: job.Clean(g.Title), About: job.Clean(g.About), Charts: g.Charts}
		for i, p := range g.Pictures {
			err := checkPNG(p.PNG)
			if pictures == MaxPictures || size+len(p.PNG) > maxPNG {
				err = fmt.Errorf("more than %d pictures or %d KiB", MaxPictures, maxPNG>>10)
			}
			if err != nil {
				if len(kept.Pictures) == i { // the first one that is left out stands for all
					without(fmt.Sprintf("picture %d of", i+1), g.Title, err)
				}
				continue
			}
			pictures, size = pictures+1, size+len(p.PNG)
			kept.Pictures = append(kept.Pictures, Picture{p.PNG, job.Clean(p.Caption)})
		}
		out.Galleries = append(out.Galleries, kept)
	}
	return out, leftOut
}

func checkTable(t evenweave.Table) error {
	if len(t.Columns) < 2 || len(t.Columns) > maxCells+1 || len(t.Rows) < 1 || len(t.Rows) > maxCells {
		return fmt.Errorf("%d columns and %d rows: at least 2 and 1, at most %d and %d", len(t.Columns), len(t.Rows),
			maxCells+1, maxCells)
	}
	for i, r := range t.Rows {
		if len(r.Cells) != len(t.Columns)-1 {
			return fmt.Errorf("row %d has %d cells under %d heads", i+1, len(r.Cells), len(t.Columns)-1)
		}
		for _, x := range r.Cells {
			if !Finite(x) || t.Shaded && x < 0 {
				return fmt.Errorf("row %d holds %v", i+1, x)
			}
		}
	}
	return nil
}

func cleanTable(t evenweave.Table) evenweave.Table {
	out := evenweave.Table{Title: job.Clean(t.Title), About: job.Clean(t.About), Shaded: t.Shaded}
	for _, c := range t.Columns {
		out.Columns = append(out.Columns, job.Clean(c))
	}
	for _, r := range t.Rows {
		out.Rows = append(out.Rows, evenweave.Row{Name: job.Clean(r.Name), Cells: slices.Clone(r.Cells)})
	}
	return out
}

// checkPNG looks at the head of a PNG file: nothing is decoded.
func checkPNG(data []byte) error {
	const head = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"
	if !bytes.HasPrefix(data, []byte(head)) || len(data) < len(head)+8 {
		return fmt.Errorf("%d bytes that are no PNG file", len(data))
	}
	w, h := binary.BigEndian.Uint32(data[len(head):]), binary.BigEndian.Uint32(data[len(head)+4:])
	if w < 1 || h < 1 || w > MaxSide || h > MaxSide {
		return fmt.Errorf("%d x %d pixels: at most %d x %d", w, h, MaxSide, MaxSide)
	}
	return nil
}
