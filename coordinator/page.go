package coordinator

import (
	"net"
	"net/http"
	"time"

	"evenweave/internal/progress"
	"evenweave/internal/web"
	"evenweave/proto"
)

// openPage adds the page to what is served there, and reports its address. Training does not depend on it: a page that
// cannot be served is a warning.
func (c *Coordinator) openPage(mux *http.ServeMux, l net.Listener) {
	token, err := web.Token(c.Dir)
	if err != nil {
		c.observe(progress.Warning{Message: "there is no page: " + err.Error()})
		return
	}
	mux.Handle("/page/", c.page.Handler(token))
	c.observe(progress.Page{URL: web.URL(l.Addr(), token)})
}

// observe takes an event outside of a term.
func (c *Coordinator) observe(e progress.Event) {
	c.Observer.Observe(progress.Record{Time: time.Now(), Event: e})
}

// show passes what a member reports about itself on to the page.
func (t *term) show(id string, s *proto.Status) {
	m, _ := t.view.Member(id)
	r := progress.MemberReport{
		ID: id, Host: m.Host, Address: t.followers[id].address, PID: m.PID, Rank: -1, Phase: s.Phase, Step: int(s.Step),
		Generation: uint64(s.Generation),
	}
	w, _ := t.proofs.present()
	if t.inWorld(id) {
		r.Rank = w.Rank(id)
	}
	for _, c := range s.Commits {
		timing := progress.StepTiming{
			Step: int(c.Step), Committed: time.Unix(0, c.TimeNanos), Compute: time.Duration(c.ComputeNanos),
			Wait: time.Duration(c.WaitNanos), Reduce: time.Duration(c.ReduceNanos),
			Update: time.Duration(c.UpdateNanos),
		}
		if r.Rank >= 0 && r.Rank < len(c.Assignment) && c.Generation == w.Generation {
			timing.MicroBatches = int(c.Assignment[r.Rank])
		}
		r.Timings = append(r.Timings, timing)
	}
	if a := s.Accusation; a != nil && a.Suspect != "" {
		r.Wait = &progress.Wait{For: a.Suspect, Kind: a.Kind, Phase: a.Phase, Step: int(a.Step) + 1,
			Waited: time.Duration(a.WaitedNanos)}
	}
	if l := s.Ledger; l != nil {
		r.Ledger = &progress.Ledger{Epoch: int(l.Epoch) + 1, Used: l.Used, Samples: l.Samples}
	}
	t.c.page.ObserveMember(time.Now(), r)
}
