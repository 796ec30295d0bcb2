package web

// Outcome is what a page knows of a job as a whole. Texts are clean.
type Outcome struct {
	Name, UUID    string
	State         string // waiting for workers, training, recovering, done, stopped, failed, recorded
	Step, Steps   int
	Epoch, Epochs int
	Workers       int
	Generation    uint64
	WeightsSHA256 string
	Failure       string // the newest
}

// Outcome returns it.
func (p *Page) Outcome() Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	j := p.history.job
	o := Outcome{j.Name, j.UUID, j.State, j.Step, j.Steps, j.Epoch, j.Epochs, j.Workers, j.Generation,
		j.WeightsSHA256, ""}
	for _, n := range p.history.notes.newest() {
		if n.Kind == "failure" {
			o.Failure = n.Text
		}
	}
	return o
}
