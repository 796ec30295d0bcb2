package evaluation

import (
	"errors"
	"fmt"
	"image"
	"math"
	"strings"
	"testing"

	"evenweave"
)

func names(n int) (all []string) {
	for i := range n {
		all = append(all, fmt.Sprintf("class %d", i))
	}
	return all
}

// Each mistake is shown as the picture that it was, and the matrix as it was counted.
func TestDetailsShowWhatWasMeasured(t *testing.T) {
	c, err := NewClasses([]string{"Shirt", "Coat"})
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range []struct {
		label  int
		scores []float32
	}{{0, []float32{2, 0}}, {1, []float32{0, 1}}, {0, []float32{0, float32(math.Log(7))}}, {1, []float32{0, 9}}} {
		if err := c.Add(i, s.label, s.scores); err != nil {
			t.Fatal(err)
		}
	}
	picture := image.NewGray(image.Rect(0, 0, 200, 100))
	d, err := c.Result().Details(func(sample int) (image.Image, error) {
		if sample != 2 {
			t.Errorf("sample %d is no mistake", sample)
		}
		return picture, nil
	})
	if err != nil || len(d.Tables) != 2 || len(d.Galleries) != 2 {
		t.Fatalf("%+v, %v", d, err)
	}
	matrix, classes, mistake, chart := d.Tables[0], d.Tables[1], d.Galleries[0].Pictures[0], d.Galleries[1]
	if fmt.Sprint(matrix.Columns, matrix.Rows) != `[is \ taken for Shirt Coat] [{Shirt [1 1]} {Coat [0 2]}]` {
		t.Errorf("%v %v", matrix.Columns, matrix.Rows)
	}
	if fmt.Sprint(classes.Rows) != "[{Shirt [100 50 66.7 2]} {Coat [66.7 100 80 2]}]" {
		t.Errorf("%v", classes.Rows)
	}
	if mistake.Caption != "Shirt, taken for Coat (87.5%)" || mistake.Image.Bounds() != image.Rect(0, 0, 80, 40) {
		t.Errorf("%q, %v", mistake.Caption, mistake.Image.Bounds())
	}
	if !chart.Charts || !strings.HasPrefix(chart.Pictures[0].Caption, "expected calibration error ") {
		t.Errorf("%+v", chart)
	}
	if d, err := c.Result().Details(nil); err != nil || len(d.Galleries) != 1 ||
		fmt.Sprint(d.Tables[2].Rows) != "[{2: Shirt, taken for Coat [87.5]}]" {
		t.Errorf("without pictures: %+v, %v", d, err)
	}
	broken := errors.New("broken")
	if _, err := c.Result().Details(func(int) (image.Image, error) { return nil, broken }); !errors.Is(err, broken) {
		t.Errorf("a picture that cannot be read: %v", err)
	}
}

// Of more classes than a table may have columns no matrix is shown, and those that go worst. What is kept has a bound.
func TestManyClasses(t *testing.T) {
	for _, n := range []int{64, 65, MaxConfusion, MaxConfusion + 1, 1000} {
		c, err := NewClasses(names(n))
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 * n {
			scores := make([]float32, n)
			scores[i*i%n] = float32(1 + i%5)
			if err := c.Add(i, i%n, scores); err != nil {
				t.Fatal(err)
			}
		}
		r := c.Result()
		d, err := r.Details(nil)
		if err != nil || r.Samples != 3*n || len(r.Mistakes) != MaxMistakes ||
			(r.Confusion == nil) != (n > MaxConfusion) {
			t.Fatalf("%d classes: %d samples, %d mistakes, %v", n, r.Samples, len(r.Mistakes), err)
		}
		rows := d.Tables[len(d.Tables)-2].Rows
		if withMatrix := n <= maxRows; (len(d.Tables) == 3) != withMatrix || len(rows) != maxRows {
			t.Errorf("%d classes: %d tables, %d rows", n, len(d.Tables), len(rows))
		}
		if n > maxRows && rows[0].Cells[2] > rows[maxRows-1].Cells[2] {
			t.Errorf("%d classes: the first has F1 %v, the last %v", n, rows[0].Cells[2], rows[maxRows-1].Cells[2])
		}
	}
	for _, n := range []int{0, MaxClasses + 1} {
		if _, err := NewClasses(make([]string, n)); err == nil {
			t.Errorf("%d classes are counted", n)
		}
	}
}

func TestWhatIsNoSampleIsRefused(t *testing.T) {
	c, err := NewClasses(names(2))
	if err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{c.Add(0, 2, []float32{0, 0}), c.Add(0, -1, []float32{0, 0}), c.Add(0, 0, nil),
		c.Add(0, 0, []float32{0, float32(math.NaN())}), NewValues(1).Add(0, math.NaN(), 1),
		NewValues(1).Add(0, math.MaxFloat64, -math.MaxFloat64), NewPositions(1).Add(0, math.Inf(1), 0, 1)} {
		if err == nil {
			t.Error("it is counted")
		}
	}
	if r := c.Result(); r.Samples != 0 || r.Loss != 0 || r.Accuracy != 0 {
		t.Errorf("%+v", r)
	}
}

// Sizes of errors are those of the definitions, the largest ones are all there, and the chart is bounded.
func TestValues(t *testing.T) {
	const n = 10000
	v := NewValues(n)
	var squares, labels, spread float64
	for i := range n {
		labels += float64(1e6+i) / n
	}
	for i := range n {
		label, off := float64(1e6+i), float64(i%7)-3
		if i == 5003 {
			off = 100
		}
		squares, spread = squares+off*off, spread+(label-labels)*(label-labels)
		if err := v.Add(i, label, label+off); err != nil {
			t.Fatal(err)
		}
	}
	d := v.Details()
	sizes, largest := d.Tables[0].Rows, d.Tables[1].Rows
	if got, want := sizes[2].Cells[0], math.Sqrt(squares/n); math.Abs(got-want) > 1e-9 {
		t.Errorf("root mean square %v, expected %v", got, want)
	}
	if got, want := sizes[3].Cells[0], 1-squares/spread; sizes[3].Name != "explained" || math.Abs(got-want) > 1e-9 {
		t.Errorf("explained %v, expected %v", got, want)
	}
	if len(largest) != MaxMistakes || fmt.Sprint(largest[0]) != "{5003 [1.005003e+06 1.005103e+06 100]}" ||
		largest[1].Name != "0" || largest[2].Name != "6" {
		t.Errorf("%v", largest)
	}
	if len(v.points) > maxPoints || len(v.points) < maxPoints/2 ||
		d.Galleries[0].Pictures[0].Image.Bounds().Dx() != 256 {
		t.Errorf("%d points", len(v.points))
	}
	same := NewValues(1)
	if err := same.Add(0, 3, 3); err != nil {
		t.Fatal(err)
	}
	if d := same.Details(); len(d.Tables[0].Rows) != 3 || len(d.Galleries) != 1 {
		t.Errorf("of one sample: %+v", d)
	}
	if d := NewValues(0).Details(); len(d.Tables)+len(d.Galleries) != 0 {
		t.Errorf("of nothing: %+v", d)
	}
}

// An axis is between round numbers that are written in a few letters, however large the numbers are.
func TestAxes(t *testing.T) {
	for says, ends := range map[string][2]float64{
		"0 600 1200": {28, 1155}, "-5 0 5": {-5, 5}, "0 0.06 0.12": {0.01, 0.11}, "-20 -10 0": {-17, -1},
		"1000k 1005k 1010k": {1e6, 1.01e6}, "0 25k 50k": {3, 45000}, "0 5e-07 1e-06": {1e-8, 9e-7},
		"95 97.5 100": {95.5, 99}, "0 1e+22G 2e+22G": {0, 2e31},
	} {
		from, half := span(ends[0], ends[1])
		if got := strings.Join([]string{tick(from), tick(from + half), tick(from + 2*half)}, " "); got != says {
			t.Errorf("%v: %s, expected %s", ends, got, says)
		}
	}
	random := evenweave.NewGenerator(5)
	for range 10000 {
		exponent := float64(random.Below(600)) - 300
		low := (float64(random.Below(2001)) - 1000) * math.Pow(10, exponent)
		high := low + float64(1+random.Below(1000))*math.Pow(10, exponent-float64(random.Below(4)))
		from, half := span(low, high)
		ulp := 1e-12 * math.Abs(low)
		if !(from <= low+ulp && from+2*half >= high-ulp) || 2*half > 5*(high-low)+ulp {
			t.Fatalf("%v to %v is on an axis from %v of %v", low, high, from, 2*half)
		}
	}
	if from, half := span(-math.MaxFloat64, math.MaxFloat64); from > -math.MaxFloat64 || math.IsNaN(half) {
		t.Errorf("the largest numbers are on an axis from %v of %v", from, half)
	}
}

func TestPositions(t *testing.T) {
	p := NewPositions(5)
	for i, weight := range []float64{4, 2, 2, 0, 1} {
		for range 2 {
			if err := p.Add(i, weight*float64(i), weight/2, weight); err != nil {
				t.Fatal(err)
			}
		}
	}
	rows := p.Details().Tables[0].Rows
	want := []evenweave.Row{{Name: "1", Cells: []float64{0, 1, 50, 8}},
		{Name: "2", Cells: []float64{1, math.E, 50, 4}}, {Name: "3-4", Cells: []float64{2, math.Exp(2), 50, 4}},
		{Name: "5", Cells: []float64{4, math.Exp(4), 50, 2}}}
	if fmt.Sprint(rows) != fmt.Sprint(want) {
		t.Errorf("%v, expected %v", rows, want)
	}
	if d := NewPositions(3).Details(); len(d.Tables) != 0 {
		t.Errorf("of nothing: %+v", d)
	}
}
