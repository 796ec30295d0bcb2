package evenweave

import (
	"context"
	"image"
)

// DetailedEvaluator may be implemented by a Model that is an Evaluator. EvaluateDetails is called in place of Evaluate
// for the test set: it returns the same figures, and what people look at beside them, on the live page and in the
// report. It makes one pass over data, as Evaluate does.
type DetailedEvaluator interface {
	EvaluateDetails(ctx context.Context, data Data) ([]Figure, Details, error)
}

// Details is what an evaluation shows: at most 4 tables of 64 rows and 64 columns, and 64 pictures of 256 pixels a side
// that take 512 KiB together as PNG. What is beyond that is left out, with a warning. Texts have at most 256 printable
// characters.
type Details struct {
	Tables    []Table
	Galleries []Gallery
}

// Table is a table of numbers, a confusion matrix for example.
type Table struct {
	Title string `json:"title"`
	About string `json:"about,omitempty"` // one sentence: how to read it
	// Columns are the heads of the columns, the one of the rows' names first.
	Columns []string `json:"columns"`
	Rows    []Row    `json:"rows"`
	// Shaded says that each cell is shaded by its value: the table is a matrix of one quantity, 0 or more.
	Shaded bool `json:"shaded,omitempty"`
}

// Row is a row of a Table: its name, and a number for each other column.
type Row struct {
	Name  string    `json:"name"`
	Cells []float64 `json:"cells"`
}

// Gallery is pictures of samples, the most confident mistakes for example.
type Gallery struct {
	Title    string
	About    string
	Pictures []Picture
	// Charts says that the pictures are charts: they are shown in full size.
	Charts bool
}

// Picture is one picture of a Gallery. The caption also stands for it where it is not seen.
type Picture struct {
	Image   image.Image
	Caption string
}
