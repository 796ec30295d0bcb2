package coordinator

import (
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"evenweave/internal/progress"
	"evenweave/internal/serving"
	"evenweave/internal/web"
	"evenweave/proto"
)

// openPage serves the live page beside the others, and reports its address. Where it can have no secret in its address,
// there is none, with a warning: training does not depend on it.
func (c *Coordinator) openPage(pages *serving.Pages, others *http.ServeMux) error {
	token, unsafe := web.Token(c.Dir)
	if unsafe != nil {
		c.journal.emit(progress.Warning{Message: "there is no page: " + unsafe.Error()})
	} else {
		others.Handle("/page/", c.page.Handler(token))
	}
	address, err := pages.Listen(c.HTTP, others)
	if err == nil && unsafe == nil {
		c.journal.emit(progress.Page{URL: web.URL(address, token)})
	}
	return err
}

// pages are what members' reports are shown on.
type pages struct {
	*web.Page
	status *statusPage
	traces progress.MemberObserver // nil: none are wanted
}

// ObserveMember implements progress.MemberObserver.
func (p pages) ObserveMember(now time.Time, r progress.MemberReport) {
	p.Page.ObserveMember(now, r)
	if p.traces != nil {
		p.traces.ObserveMember(now, r)
	}
}

func (p pages) ledger(l *proto.Ledger) { p.status.setLedger(l) }

// report is what a member reports about itself, for the page.
func (r *roster) report(s *proto.Status) progress.MemberReport {
	m, _ := r.view.Member(s.Member)
	report := progress.MemberReport{
		ID: s.Member, Host: m.Host, Address: r.followers[s.Member].address, PID: m.PID, Rank: -1, Phase: s.Phase,
		Step: int(s.Step), Generation: uint64(s.Generation),
	}
	w, _ := r.proofs.present()
	if r.inWorld(s.Member) {
		report.Rank = w.Rank(s.Member)
	}
	for _, c := range s.Commits {
		timing := progress.StepTiming{
			Step: int(c.Step), Committed: time.Unix(0, c.TimeNanos), Compute: time.Duration(c.ComputeNanos),
			Wait: time.Duration(c.WaitNanos), Reduce: time.Duration(c.ReduceNanos),
			Update: time.Duration(c.UpdateNanos),
		}
		if report.Rank >= 0 && report.Rank < len(c.Assignment) && c.Generation == w.Generation {
			timing.MicroBatches = int(c.Assignment[report.Rank])
		}
		report.Timings = append(report.Timings, timing)
	}
	if a := s.Accusation; a != nil && a.Suspect != "" {
		report.Wait = &progress.Wait{For: a.Suspect, Kind: a.Kind, Phase: a.Phase, Step: int(a.Step) + 1,
			Waited: time.Duration(a.WaitedNanos)}
	}
	if l := s.Ledger; l != nil {
		report.Ledger = &progress.Ledger{Epoch: int(l.Epoch) + 1, Used: l.Used, Samples: l.Samples}
	}
	return report
}

// statusPage keeps what the status page shows. Safe for concurrent use.
type statusPage struct {
	mu     sync.Mutex
	latest map[string]progress.Event
	ledger *proto.Ledger
}

func newStatusPage() *statusPage { return &statusPage{latest: map[string]progress.Event{}} }

// Observe keeps the newest event of each kind.
func (p *statusPage) Observe(r progress.Record) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, secret := r.Event.(progress.Page); !secret {
		p.latest[r.Event.Kind()] = r.Event
	}
}

func (p *statusPage) setLedger(l *proto.Ledger) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ledger = l
}

func (p *statusPage) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	p.mu.Lock()
	page := map[string]any{"ledger": p.ledger}
	for kind, e := range p.latest {
		page[kind] = e
	}
	p.mu.Unlock() // the client may read slowly
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(page)
}
