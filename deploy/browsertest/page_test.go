package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// browser is one page in a headless Chromium, and what is wrong with it.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu     sync.Mutex
	calm   bool // the server is there: what fails now is a fault
	faults []string
}

func open(t *testing.T) *browser {
	t.Helper()
	if os.Getenv("EVENWEAVE_TEST_BROWSER") == "" {
		t.Skip("needs Chromium: run `make test-browser`")
	}
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if found, err := exec.LookPath(name); err == nil && path == "" {
			path = found
		}
	}
	if path == "" && os.Getenv("EVENWEAVE_TEST_BROWSER") == "required" {
		t.Fatal("there is no Chromium here, and this test is required: apt-get install chromium")
	}
	if path == "" {
		t.Skip("there is no Chromium here: apt-get install chromium")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path),
		chromedp.Flag("disable-gpu", true),
		chromedp.WSURLReadTimeout(time.Minute), chromedp.UserDataDir(t.TempDir()))
	if os.Getuid() == 0 { // Chromium's sandbox refuses root, which containers have
		options = append(options, chromedp.NoSandbox)
	}
	ctx, stop := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, closePage := chromedp.NewContext(ctx)
	t.Cleanup(func() { closePage(); stop() })
	b := &browser{t: t, ctx: ctx, calm: true}
	if err := chromedp.Listen(ctx, b.listen); err != nil {
		t.Fatal(err)
	}
	if _, err := chromedp.Call(ctx, network.Enable, network.EnableParams{}); err != nil {
		t.Fatal(err)
	}
	return b
}

// listen notes errors on the console, and every request that leaves the page's own server.
func (b *browser) listen(event any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	fault := func(format string, args ...any) { b.faults = append(b.faults, fmt.Sprintf(format, args...)) }
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		fault("exception: %s %+v", e.ExceptionDetails.Text, e.ExceptionDetails.Exception)
	case *runtime.EventConsoleAPICalled:
		if e.Type == "error" || e.Type == "warning" {
			fault("console: %s %s", e.Type, e.Args[0].Value)
		}
	case *log.EventEntryAdded:
		if gone := e.Entry.Source == "network" && !b.calm; e.Entry.Level == "error" && !gone {
			fault("log: %s %s", e.Entry.Text, e.Entry.URL)
		}
	case *network.EventRequestWillBeSent:
		own := func(prefix string) bool { return strings.HasPrefix(e.Request.URL, prefix) }
		if !own("http://127.0.0.1:") && !own("data:") && !own("file:") {
			fault("a request to %s", e.Request.URL)
		}
	}
}

func (b *browser) expectServer(there bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calm = there
}

func (b *browser) check() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, f := range b.faults {
		b.t.Error(f)
	}
	b.faults = nil
}

func (b *browser) do(actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// text is what an expression of JavaScript gives, as text.
func (b *browser) text(expression string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, time.Minute)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expression+")", chromedp.EvalAwaitPromise))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	return out
}

// until waits for an expression to be true.
func (b *browser) until(expression string) {
	b.t.Helper()
	b.some(expression + " || null")
}

// some waits until an expression is not null, and is that as text. What must fit together is one expression: the page
// goes on between two.
func (b *browser) some(expression string) string {
	b.t.Helper()
	late, tick := time.After(2*time.Minute), time.NewTicker(100*time.Millisecond)
	defer tick.Stop()
	for {
		if text := b.text(expression); text != "null" {
			return text
		}
		select {
		case <-tick.C:
		case <-late:
			b.t.Fatalf("waiting in vain for %s; the page says:\n%.3000s", expression, b.text("document.body.innerText"))
		}
	}
}

// window sets the size of the window, and whether a user prefers dark or light.
func (b *browser) window(width, height int64, scheme string) {
	b.t.Helper()
	features := []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia,
		emulation.SetEmulatedMediaParams{Features: features}); err != nil {
		b.t.Fatal(err)
	}
	b.do(chromedp.EmulateViewport(width, height))
}

const data = "--global-batch=32 --micro-batch=4 --samples=4800 --checkpoint-every=100"

// A person that looks at a run sees a worker killed and another one join, and the page survives its coordinator.
func TestThePageShowsAKill(t *testing.T) {
	b := open(t)
	r := train(t, append(strings.Fields(data), "--steps=30000")...) // more than it computes before it is interrupted
	url := r.await("the page's address", func(l line) bool { return l.Event == "page" }).URL
	b.window(1080, 1250, "light")
	b.do(chromedp.Navigate(url))
	world := func(size, after int) func(line) bool {
		return func(l line) bool { return l.Event == "world" && l.Size == size && l.Generation > after }
	}
	first := r.await("a world of two", world(2, 0))
	r.await("200 steps", func(l line) bool { return l.Event == "step" && l.Step >= 200 })

	victim := first.Members[1]
	r.kill(victim.PID)
	b.until(fmt.Sprintf(`document.querySelector('[data-member="%s"]')?.dataset.state === "lost"`, victim.ID))
	b.until(`document.querySelector("figure .mark.lost") !== null`)
	back := r.await("a world with a new member", world(2, first.Generation))
	isNew := func(m member) bool { return !slices.Contains(first.Members, m) }
	fresh := back.Members[slices.IndexFunc(back.Members, isNew)]
	b.until(fmt.Sprintf(`document.querySelector('[data-member="%s"]')?.dataset.state === "training"`, fresh.ID))
	b.until(fmt.Sprintf(`document.querySelector('.mark.joined[data-generation="%d"]') !== null`, back.Generation))

	r.evenweave("scale", "3")
	r.await("a world of three", world(3, 0))
	b.until(`document.querySelectorAll('[data-member][data-state="training"]').length === 3`)
	b.until(`document.querySelector("#recoveries td + td") !== null`)
	b.check()

	labels(b)
	keyboard(b, victim.ID)
	restart(b, r)
	b.until(`document.querySelector("#evaluations td + td") !== null`)
	details(b)
	pictures(b)
	b.check()

	b.expectServer(false)
	r.interrupt()
	report := r.evenweave("report")
	b.do(chromedp.Navigate("file://" + report))
	b.until(`document.body.dataset.drawn !== undefined`)
	b.expectServer(true) // the page that tried to reach its server has gone
	sameAsMetrics(b, r)
	if n := b.text(`document.querySelectorAll('#generations [data-kind="lost"]').length`); n == "0" {
		t.Error("the report lacks the kill")
	}
	details(b)
	b.check()
}

// A page that is open sees a run to its end. The run waits for a third worker until the page is open.
func TestThePageSeesTheEnd(t *testing.T) {
	b := open(t)
	t.Setenv("EVENWEAVE_MIN_WORKERS", "3")
	r := train(t, append(strings.Fields(data), "--steps=600")...)
	url := r.await("the page's address", func(l line) bool { return l.Event == "page" }).URL
	b.expectServer(false) // it goes when the run is over
	b.do(chromedp.Navigate(url))
	b.until(`document.getElementById("connection").textContent === "live"`)
	r.evenweave("scale", "3")
	r.await("the end", func(l line) bool { return l.Event == "done" })
	b.until(`document.getElementById("state").textContent === "done"`)
	sameAsMetrics(b, r)
	if err := <-r.ended; err != nil {
		t.Errorf("the run failed: %v", err)
	}
	b.until(`document.getElementById("connection").textContent === "the run is over"`)
	b.check()
}

// labels looks at what is written on charts: names as words, and the ends of epochs below the curves.
func labels(b *browser) {
	b.t.Helper()
	if said := b.text(`["mae", "mean_error", "accuracy"].map(label).join()`); said != "MAE,mean error,accuracy" {
		b.t.Errorf("figures are named %s", said)
	}
	epochs := b.text(`[...document.querySelectorAll("#charts svg")].map((svg) => {
		const low = Math.max(...[...svg.querySelectorAll(".curve")].map((c) => c.getBBox()).map((c) => c.y + c.height));
		const ends = [...svg.querySelectorAll("text")].filter((t) => /^e\d/.test(t.textContent));
		return ends.length > 0 && ends.every((t) => t.getBBox().y > low);
	}).join()`)
	if epochs != "true,true,true" {
		b.t.Errorf("ends of epochs are written below the curves of the charts: %s", epochs)
	}
}

// keyboard reads a chart and the timeline without a pointer.
func keyboard(b *browser, victim string) {
	b.t.Helper()
	b.do(chromedp.Focus(chromedp.CSS("figure svg")), chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.ArrowRight))
	if said := b.text(`document.getElementById("curve-cursor").textContent`); !strings.HasPrefix(said,
		"Step 2, epoch 1; loss: training ") {
		b.t.Errorf("a key on the chart says %q", said)
	}
	// The timeline of the whole run: what happened more than a minute ago is on no shorter one.
	b.text(`document.querySelector('input[name="window"][value="all"]').click()`)
	b.do(chromedp.Focus(chromedp.CSS("#timeline")), chromedp.KeyEvent(kb.Home), chromedp.KeyEvent(kb.PageDown))
	if said := b.text(`document.getElementById("timeline-cursor").textContent`); !strings.Contains(said, victim+": ") {
		b.t.Errorf("a key on the timeline says %q, nothing of %s", said, victim)
	}
	for _, id := range []string{"timeline", "charts svg"} {
		if label := b.text(fmt.Sprintf(`document.querySelector("#%s").getAttribute("aria-label")`,
			id)); len(label) < 40 {
			b.t.Errorf("a reader of screens is given %q for %s", label, id)
		}
	}
	b.text(`document.querySelector('input[name="window"][value="60"]').click()`)
}

// restart kills the coordinator: the page goes on with what it had.
func restart(b *browser, r *run) {
	b.t.Helper()
	const generations = `document.querySelectorAll("#generations tbody tr").length`
	before := b.text(generations)
	r.keeps(before)
	b.text(`(window.said = [], new MutationObserver(() => said.push(document.getElementById("connection").textContent))
		.observe(document.getElementById("connection"), { childList: true }))`)
	b.expectServer(false)
	r.kill(r.coordinator())
	b.until(`said.length > 1 && said[0].startsWith("no connection") && said.at(-1) === "live"`)
	b.expectServer(true)
	step := b.text(`document.getElementById("loss").dataset.step`)
	b.until(fmt.Sprintf(`Number(document.getElementById("loss").dataset.step) > %s`, step))
	if b.text(generations+" >= "+before) != "true" {
		b.t.Errorf("%s generations were shown, %s after a restart of the coordinator", before, b.text(generations))
	}
}

// evaluated is what the page shows of its newest evaluation, when that is whole: the matrix, the mistakes, and the row
// of figures.
const evaluated = `(() => {
	const section = document.getElementById("details"), step = Number(section.dataset.step);
	const figures = model.evaluations.tail.find((e) => e[row.step] === step);
	const matrix = section.querySelector(".wide:first-of-type .matrix");
	const pictures = [...section.querySelectorAll(".gallery:not(.charts) img")];
	if (section.hidden || !figures || !matrix || !pictures.every((i) => i.complete)) return null;
	const cells = [...matrix.querySelectorAll("tbody tr")].map((tr) =>
		[...tr.querySelectorAll("td")].map((td) => Number(td.textContent.replace(",", ""))));
	const captioned = (i) => /^[A-Z].*, taken for [A-Z].* \(\d+\.\d%\)$/.test(i.alt);
	return JSON.stringify({
		images: cells.flat().reduce((sum, n) => sum + n, 0),
		right: cells.reduce((sum, tr, i) => sum + tr[i], 0) / 10000,
		accuracy: figures[row.values + model.evaluations.metrics.indexOf("accuracy")],
		heads: ['th[scope="col"]', 'tbody th[scope="row"]', "caption"].map((h) => matrix.querySelectorAll(h).length),
		ragged: [...section.querySelectorAll(".matrix:not(.shaded) tbody td")].map((td) => td.textContent)
			.filter((text, i) => i % 4 < 3 && !/^\d+\.\d$/.test(text)).join(" "),
		pictures: pictures.length,
		bad: pictures.filter((i) => i.naturalWidth !== 28 || !captioned(i)).map((i) => i.outerHTML).join(""),
	});
})()`

// details looks at what the last evaluation shows: the matrix counts each test image once and has the accuracy in its
// diagonal, and each mistake is a picture with a caption that is read aloud.
func details(b *browser) {
	b.t.Helper()
	var seen struct {
		Images, Right, Accuracy float64
		Heads                   [3]int
		Ragged, Bad             string
		Pictures                int
	}
	if err := json.Unmarshal([]byte(b.some(evaluated)), &seen); err != nil {
		b.t.Fatal(err)
	}
	if seen.Images != 10000 || seen.Right != seen.Accuracy || seen.Heads != [3]int{11, 10, 1} {
		b.t.Errorf("the matrix holds %v images, %v of them right, with accuracy %v; heads %v", seen.Images, seen.Right,
			seen.Accuracy, seen.Heads)
	}
	if seen.Ragged != "" {
		b.t.Errorf("percentages of classes with another number of digits than others: %s", seen.Ragged)
	}
	if seen.Pictures != 24 || seen.Bad != "" {
		b.t.Errorf("%d pictures of mistakes, these are bad: %.300s", seen.Pictures, seen.Bad)
	}
}

func pictures(b *browser) {
	b.t.Helper()
	b.text(`(document.activeElement.blur(), timeline.cursor = null, moveCursor(null, null),
		document.querySelectorAll("output").forEach((o) => {
			o.textContent = "Arrow keys, or the pointer, read values.";
		}))`)
	const top, run, evaluation = "body", "section:has(#timeline)", "#details"
	b.picture("page-light.png", 1080, "light", top, run)
	b.picture("page-dark.png", 1080, "dark", top, run)
	b.picture("page-narrow.png", 400, "light", top, run)
	b.picture("page-details.png", 1080, "light", evaluation, evaluation)
	b.picture("page-details-dark.png", 1080, "dark", evaluation, evaluation)
	b.picture("page-details-narrow.png", 400, "light", evaluation, evaluation)
	if cut := b.text(`(({scrollWidth, clientWidth}) => scrollWidth - clientWidth)(
		document.querySelector("#details .matrix.shaded").parentElement)`); cut != "0" {
		b.t.Errorf("%s pixels of the confusion matrix are out of sight in a window of 400", cut)
	}
	b.window(1080, 1250, "light")
}

// sameAsMetrics compares the end of the curve with metrics.jsonl, to the last bit.
func sameAsMetrics(b *browser, r *run) {
	b.t.Helper()
	step, loss := r.lastLoss()
	var shown struct{ Step, Value json.Number }
	if err := json.Unmarshal([]byte(b.text(`JSON.stringify(document.getElementById("loss").dataset)`)),
		&shown); err != nil {
		b.t.Fatal(err)
	}
	at, err1 := shown.Step.Int64()
	if value, err := shown.Value.Float64(); err1 != nil || err != nil || at != int64(step) || value != loss {
		b.t.Errorf("the curve ends with %v, metrics.jsonl with %v at step %d", shown, loss, step)
	}
}
