package sheet

import (
	"encoding/base64"
	"math"
	"regexp"
	"strings"
	"testing"

	"evenweave"
)

// Every number is there, nothing is fetched, and names are text.
func TestAPageOfAnEvaluationIsWhole(t *testing.T) {
	var page strings.Builder
	err := WritePage(&page, "step 7, <b>weights</b>", []evenweave.Figure{{Name: "accuracy", Value: 0.75}},
		evenweave.Details{
			Tables: []evenweave.Table{{Title: "Matrix", Shaded: true, About: "How many",
				Columns: []string{"is", "<script>a</script>", "b"},
				Rows: []evenweave.Row{{Name: "one", Cells: []float64{13, 0}},
					{Name: "two", Cells: []float64{3.14159, 52}}}}},
			Galleries: []evenweave.Gallery{
				{Title: "Mistakes", Pictures: []evenweave.Picture{{Image: dot(2, 2), Caption: "one, taken for b"}}},
				{Title: "Calibration", Charts: true, Pictures: []evenweave.Picture{{Image: dot(9, 9), Caption: "c"}}},
			}})
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"step 7, &lt;b&gt;", "test accuracy<td>0.75", "&lt;script&gt;a", ">13.0000<", ">0<",
		">3.1416<", ">52<",
		`rgb(0 114 178/0.50)">52<`, `style="">0<`, "one, taken for b", `class="charts"`} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("%q is missing:\n%s", want, &page)
		}
	}
	if strings.Contains(page.String(), "<script") ||
		regexp.MustCompile(`https?:|src="[^d]|href`).MatchString(page.String()) {
		t.Error("the page holds a script, or fetches something")
	}
	pictures := regexp.MustCompile(`src="data:image/png;base64,([^"]*)"`).FindAllStringSubmatch(page.String(), -1)
	if len(pictures) != 2 {
		t.Fatalf("%d pictures, want 2", len(pictures))
	}
	if b, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(pictures[0][1], "&#43;", "+")); err != nil ||
		!strings.HasPrefix(string(b), "\x89PNG") {
		t.Errorf("%v: no PNG", err)
	}
	empty := evenweave.Details{Tables: []evenweave.Table{{Shaded: true, Columns: []string{"", "a"},
		Rows: []evenweave.Row{{Cells: []float64{math.NaN()}}}}}}
	if err := WritePage(&page, "", nil, empty); err != nil {
		t.Error(err)
	}
}
