package progress

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"evenweave"
	"evenweave/internal/job"
)

// shownMetrics bounds those in a line about steps: more do not fit on a screen.
const shownMetrics = 8

// view is a job's state after the events so far, and the words for events.
type view struct {
	start Start
	step  Step // the last one; its Step is 0 before the first
	world World
	meter meter
	ended string // how the job ended; "" before Done
}

func (v *view) apply(r Record) {
	switch e := r.Event.(type) {
	case Start:
		*v = view{start: e}
	case Step:
		v.step = e
		v.meter.add(r.Time, e)
	case World:
		v.world = e
		v.meter.reset()
	case Done:
		v.ended = "done"
		if !e.Complete {
			v.ended = "stopped"
		}
	}
}

// position is the last committed step.
func (v *view) position() int {
	if v.step.Step == 0 {
		return v.start.ResumedFrom
	}
	return v.step.Step
}

// workers is how many workers train now.
func (v *view) workers() int {
	if v.world.Size > 0 {
		return v.world.Size
	}
	return v.step.Workers
}

// status is the state of training as fields, the most important first.
func (v *view) status() []string {
	loss, metrics := v.meter.means()
	fields := []string{
		"epoch " + of(v.step.Epoch, v.start.Epochs),
		"step " + of(v.step.Step, v.start.Steps),
		"loss " + Number("loss", loss),
	}
	for _, m := range metrics[:min(len(metrics), shownMetrics)] {
		text := Number(m.Name, m.Value)
		if IsShare(m.Name) { // of some steps' samples: more digits say nothing
			text = fmt.Sprintf("%.1f%%", 100*m.Value)
		}
		fields = append(fields, job.Clean(m.Name)+" "+text)
	}
	if s := v.meter.speed(); s.images > 0 {
		fields = append(fields, fmt.Sprintf("%.0f samples/s", s.images))
	}
	fields = append(fields, count(v.workers(), "worker"))
	if v.step.Skips > 0 {
		fields = append(fields, fmt.Sprintf("%d skipped", v.step.Skips))
	}
	return fields
}

// eta is when training ends at this speed, in words; "": unknown.
func (v *view) eta() string {
	if d, ok := v.meter.eta(v.start.Steps - v.step.Step); ok && v.step.Step < v.start.Steps {
		return "ETA " + short(d)
	}
	return ""
}

// describe returns e in words: lines of printable characters, without line ends.
func (v *view) describe(e Event) []string {
	return job.Lines(strings.Join(v.words(e), "\n"))
}

func (v *view) words(e Event) []string {
	switch e := e.(type) {
	case Start:
		return describeStart(e)
	case Step:
		fields := v.status()
		if eta := v.eta(); eta != "" {
			fields = append(fields, eta)
		}
		return []string{strings.Join(fields, "  ")}
	case World:
		return []string{describeWorld(e)}
	case Checkpoint:
		return []string{fmt.Sprintf("checkpoint: step %d, epoch %d, %s: %s", e.Step, e.Epoch, size(e.Bytes), e.Path)}
	case Evaluation:
		found := append(listFigures("test", e.Figures), listFigures("held-out", e.Holdout)...)
		return []string{fmt.Sprintf("evaluation: step %d, epoch %d: %s", e.Step, e.Epoch, strings.Join(found, ", "))}
	case MemberChange:
		return message("member "+e.ID+" "+e.What, e.Detail)
	case Page:
		return message("page", e.URL)
	case Notice:
		return message("", e.Message)
	case Warning:
		return message("warning", e.Message)
	case Failure:
		return describeFailure(e)
	case Done:
		return describeDone(e)
	case Unknown:
		return message(e.Name, strings.TrimSpace(string(e.Line)))
	}
	return []string{job.Clean(e.Kind())}
}

func describeStart(e Start) []string {
	first := "job " + job.Clean(e.Job)
	if e.UUID != "" {
		first += " (" + job.Clean(e.UUID[:min(8, len(e.UUID))]) + ")"
	}
	if e.Model != "" {
		first += ", " + job.Clean(e.Model)
	}
	if e.Recipe != "" {
		first += ", recipe " + job.Clean(e.Recipe)
	}
	second := fmt.Sprintf("%s of %d samples", count(e.Epochs, "epoch"), e.Samples)
	if e.Workers > 0 { // in a cluster there is no wanted number
		second += ", " + count(e.Workers, "worker")
	}
	out := []string{
		fmt.Sprintf("%s, seed %d%s", first, e.Seed, onBackend(e.Backend)),
		second,
		fmt.Sprintf("%s of %d samples, micro-batches of %d", count(e.Steps, "step"), e.GlobalBatch, e.MicroBatch),
	}
	if e.ResumedFrom > 0 {
		out = append(out, fmt.Sprintf("resumed from step %d", e.ResumedFrom))
	}
	if len(e.Layers) == 0 {
		return out
	}
	total, widest := 0, len("layer")
	for _, l := range e.Layers {
		total += l.Parameters
		widest = max(widest, len(job.Clean(l.Name)))
	}
	row := func(name, shape, parameters string) {
		out = append(out, fmt.Sprintf("  %-*s  %-12s  %10s", widest, name, shape, parameters))
	}
	row("layer", "output", "parameters")
	for _, l := range e.Layers {
		row(job.Clean(l.Name), job.Clean(l.Output), strconv.Itoa(l.Parameters))
	}
	row("total", "", strconv.Itoa(total))
	return out
}

func describeWorld(e World) string {
	const most = 8 // `status` lists more
	names := make([]string, 0, most+1)
	for i, m := range e.Members {
		if i == most {
			names = append(names, fmt.Sprintf("and %d more", len(e.Members)-most))
			break
		}
		names = append(names, job.Clean(m.ID))
	}
	text := fmt.Sprintf("world: generation %d, %s", e.Generation, count(e.Size, "worker"))
	if len(names) > 0 {
		text += " (" + strings.Join(names, ", ") + ")"
	}
	if e.Reason != "" {
		text += ": " + job.Clean(e.Reason)
	}
	return text
}

// onBackend is ", backend xla"; "" for a task that has no choice of backends.
func onBackend(name string) string {
	if name == "" {
		return ""
	}
	return ", backend " + job.Clean(name)
}

func describeFailure(e Failure) []string {
	var where []string
	add := func(known bool, format string, value any) {
		if known {
			where = append(where, fmt.Sprintf(format, value))
		}
	}
	add(e.Member != "", "member %s", job.Clean(e.Member))
	add(e.Generation != 0, "generation %d", e.Generation)
	add(e.Step != 0, "step %d", e.Step)
	out := message("failure", e.Message)
	if len(where) > 0 {
		out[len(out)-1] += " (" + strings.Join(where, ", ") + ")"
	}
	return out
}

// listFigures is "test perplexity 12.3", "test loss 2.5".
func listFigures(of string, figures []evenweave.Figure) (out []string) {
	for _, f := range figures {
		out = append(out, of+" "+job.Clean(f.Name)+" "+Number(f.Name, f.Value))
	}
	return out
}

func describeDone(e Done) []string {
	head := "done: "
	if !e.Complete {
		head = "stopped early, the same command goes on from here: "
	}
	place := fmt.Sprintf("step %d, epoch %d", e.Step, e.Epoch)
	head += strings.Join(append([]string{place}, listFigures("test", e.Figures)...), ", ")
	out := []string{head, fmt.Sprintf("%s on %s%s, %.0f samples/s",
		short(time.Duration(e.WallSeconds*float64(time.Second))), count(e.Workers, "worker"), onBackend(e.Backend),
		e.SamplesPerSecond)}
	if e.Skipped > 0 {
		out = append(out, count(e.Skipped, "step")+" skipped: not finite")
	}
	if e.WeightsSHA256 != "" {
		out = append(out, "weights_sha256 "+job.Clean(e.WeightsSHA256))
	}
	if e.Checkpoint != "" {
		out = append(out, "checkpoint "+e.Checkpoint)
	}
	return out
}

// message is text under a heading, both cleaned: they may come from elsewhere.
func message(heading, text string) []string {
	if heading = job.Clean(heading); heading != "" && text != "" {
		heading += ": "
	}
	return job.Lines(heading + text)
}

func of(n, total int) string {
	if total <= 0 {
		return strconv.Itoa(n)
	}
	return strconv.Itoa(n) + "/" + strconv.Itoa(total)
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

func size(bytes int64) string {
	switch {
	case bytes < 1e3:
		return fmt.Sprintf("%d B", bytes)
	case bytes < 1e6:
		return fmt.Sprintf("%.0f kB", float64(bytes)/1e3)
	case bytes < 1e9:
		return fmt.Sprintf("%.1f MB", float64(bytes)/1e6)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/1e9)
}

// short is a duration in short form: 42s, 3m07s, 5h12m.
func short(d time.Duration) string {
	s := int(d.Round(time.Second) / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	}
	return fmt.Sprintf("%dh%02dm", s/3600, s%3600/60)
}
