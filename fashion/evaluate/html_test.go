package evaluate

import (
	"encoding/base64"
	"image"
	"regexp"
	"strings"
	"testing"
)

// TestHTMLIsOnePage: every figure is there, nothing is fetched, and names are text.
func TestHTMLIsOnePage(t *testing.T) {
	r := Result{Images: 40, Accuracy: 0.75, MacroF1: 0.5, ECE: 0.125, Loss: 0.5,
		Classes:   []Class{{"<script>a</script>", 0.1, 0.2, 0.3, 20}, {"b", 0.4, 0.6, 0.7, 20}},
		Confusion: [][]int{{13, 7}, {3, 17}},
		Bins:      []Bin{{0.2, 0.4, 11, 0.33, 0.44}},
		Mistakes:  []Mistake{{12, 0, 1, 0.987}, {34, 1, 0, 0.8}},
	}
	var page strings.Builder
	asked := 0
	err := r.WriteHTML(&page, "step 7", func(i int) image.Image {
		asked += i + 1
		return image.NewGray(image.Rect(0, 0, 2, 2))
	})
	if err != nil || asked != 3 {
		t.Fatalf("%v, asked for %d", err, asked)
	}
	for _, want := range []string{"75.0% of 40 images", "step 7", "macro F1 50.0%", "error 12.5%", "&lt;script&gt;a",
		"30.0%", ">13", ">17", "33.0%", "44.0%", "98.7%", "image 34"} {
		if !strings.Contains(page.String(), want) {
			t.Errorf("%q is missing", want)
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
}
