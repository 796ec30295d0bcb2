package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"sort"
	"strconv"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/progress"
	"evenweave/proto"
)

// snapshot is what `evenweave status` shows.
type snapshot struct {
	Event            string         `json:"event"`
	Time             time.Time      `json:"time"`
	Job              string         `json:"job"`
	Generation       int64          `json:"generation"`
	Step             int64          `json:"step"`
	Steps            int64          `json:"steps"`
	Loss             *float64       `json:"loss"`
	SamplesPerSecond *float64       `json:"samples_per_second"`
	Members          []memberStatus `json:"members"`
	Coordinator      *leaderStatus  `json:"coordinator"`
	Ledger           *ledgerStatus  `json:"ledger"`
	Reason           string         `json:"reason"`
	Insecure         bool           `json:"insecure,omitempty"`        // every process that reaches a port is served
	Skipped          []string       `json:"skipped_records,omitempty"` // why each cannot be used
	OtherProtocol    int            `json:"other_protocol_members,omitempty"`
	Done             *job.Done      `json:"done,omitempty"`
}

type memberStatus struct {
	ID           string `json:"id"`
	Rank         int    `json:"rank"` // -1: spare
	Address      string `json:"address"`
	PID          int    `json:"pid"`
	Host         string `json:"host"`
	Step         int64  `json:"step"`
	Phase        string `json:"phase"`
	MicroBatches int    `json:"micro_batches"`
	Answers      bool   `json:"answers"`
	Accuses      string `json:"accuses,omitempty"`
	Repaired     int64  `json:"heals,omitempty"`
}

type leaderStatus struct {
	ID      string `json:"id"`
	PID     int    `json:"pid"`
	Host    string `json:"host"`
	Address string `json:"address"`
}

type ledgerStatus struct {
	Epoch   int64 `json:"epochs_complete"`
	Used    int64 `json:"used"`
	Samples int64 `json:"samples"`
}

func look(ctx context.Context, c *cluster.Client) (snapshot, error) {
	v, err := view(ctx, c)
	if err != nil {
		return snapshot{}, err
	}
	statuses := map[string]*proto.Status{} // measured by the members that answer
	for _, a := range askAll(ctx, c, v, func(ctx context.Context, m proto.MemberClient,
		to ...grpc.CallOption) (*proto.Status, error) {
		return m.Probe(ctx, &proto.ProbeRequest{Job: v.Job.UUID}, to...)
	}) {
		if a.err == nil {
			statuses[a.id] = a.reply
		}
	}
	s := snapshot{Event: "status", Time: time.Now(), Job: v.Job.UUID, Step: -1, Steps: v.Job.Spec.TotalSteps(),
		Members: []memberStatus{}, Done: v.Done}
	for _, bad := range v.Skipped {
		s.Skipped = append(s.Skipped, bad.Error())
	}
	s.OtherProtocol, s.Insecure = v.OtherProtocol(), c.Transport().Insecure()
	if v.World != nil {
		s.Generation, s.Reason = v.World.Generation, v.World.Reason
	}
	if l := v.Leader; l != nil {
		s.Coordinator = &leaderStatus{l.ID, l.PID, l.Host, l.Address}
	}
	for _, m := range v.Members {
		ms := memberStatus{ID: m.ID, Rank: -1, Address: m.Address, PID: m.PID, Host: m.Host, Step: -1,
			Phase: "no answer"}
		if v.World != nil {
			ms.Rank = v.World.Rank(m.ID)
		}
		if p := statuses[m.ID]; p != nil {
			ms.Answers, ms.Step, ms.Phase, ms.Repaired = true, p.Step, p.Phase, p.Heals
			if p.Accusation != nil {
				ms.Accuses = p.Accusation.Suspect
			}
			if n := len(p.Commits); n > 0 {
				last := p.Commits[n-1]
				if ms.Rank >= 0 && ms.Rank < len(last.Assignment) {
					ms.MicroBatches = int(last.Assignment[ms.Rank])
				}
				if last.Step >= s.Step {
					s.measure(last)
				}
			}
			if p.Step > s.Step {
				s.Step = p.Step
			}
			if l := p.Ledger; l != nil && p.Step == s.Step {
				s.Ledger = &ledgerStatus{l.Epoch, l.Used, l.Samples}
			}
		}
		s.Members = append(s.Members, ms)
	}
	sort.SliceStable(s.Members, func(i, j int) bool { return uint(s.Members[i].Rank) < uint(s.Members[j].Rank) })
	if s.Step < 0 && v.Done != nil {
		s.Step = v.Done.Step
	}
	s.clean()
	return s, nil
}

// measure takes what a member says of a step. A loss that is no finite number is left out: JSON cannot hold it.
func (s *snapshot) measure(c *proto.Commit) {
	if progress.Finite(c.Loss) {
		s.Loss = &c.Loss
	}
	if nanos := c.ComputeNanos + c.WaitNanos + c.ReduceNanos + c.UpdateNanos; nanos > 0 {
		rate := float64(c.Samples) * 1e9 / float64(nanos)
		s.SamplesPerSecond = &rate
	}
}

// clean makes every text printable, for other processes wrote them.
func (s *snapshot) clean() {
	texts := []*string{&s.Job, &s.Reason}
	for i := range s.Skipped {
		texts = append(texts, &s.Skipped[i])
	}
	for i := range s.Members {
		m := &s.Members[i]
		texts = append(texts, &m.ID, &m.Address, &m.Host, &m.Phase, &m.Accuses)
	}
	if c := s.Coordinator; c != nil {
		texts = append(texts, &c.ID, &c.Host, &c.Address)
	}
	if d := s.Done; d != nil {
		done := *d
		s.Done = &done
		texts = append(texts, &done.Checkpoint, &done.Failure)
	}
	for _, text := range texts {
		*text = job.Clean(*text)
	}
}

func (s snapshot) show(w io.Writer) {
	number := func(f *float64, format string) string {
		if f == nil {
			return "-"
		}
		return fmt.Sprintf(format, *f)
	}
	fmt.Fprintf(w, "job          %s\ngeneration   %d (%s)\nstep         %d of %d\nloss         %s\nsamples/s    %s\n",
		s.Job, s.Generation, s.Reason, s.Step, s.Steps, number(s.Loss, "%.4f"), number(s.SamplesPerSecond, "%.0f"))
	if c := s.Coordinator; c != nil {
		fmt.Fprintf(w, "coordinator  %s, pid %d on %s\n", c.ID, c.PID, c.Host)
	} else {
		fmt.Fprintln(w, "coordinator  none now: steps go on, nothing is published")
	}
	if l := s.Ledger; l != nil {
		fmt.Fprintf(w, "ledger       %d epochs complete, each sample once; %d of %d samples used in the open one\n",
			l.Epoch, l.Used, l.Samples)
	}
	if s.Insecure {
		fmt.Fprintln(w, "security     none (--insecure): every process that reaches a port is served")
	}
	if n := len(s.Skipped); n > 0 {
		fmt.Fprintf(w, "skipped      records that cannot be used: %d; %s\n", n, s.Skipped[0])
	}
	if s.OtherProtocol > 0 {
		fmt.Fprintf(w, "refused      members that speak another protocol: %d; start them from the same build\n",
			s.OtherProtocol)
	}
	if d := s.Done; d != nil {
		fmt.Fprintf(w, "done         step %d, complete: %v, checkpoint %s %s\n",
			d.Step, d.Complete, d.Checkpoint, d.Failure)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\nrank\tmember\tstep\tmicro-batches\tphase\taddress\tpid\thost")
	for _, m := range s.Members {
		rank := "spare"
		if m.Rank >= 0 {
			rank = strconv.Itoa(m.Rank)
		}
		phase := m.Phase
		if m.Accuses != "" {
			phase += " (waited for " + m.Accuses + ")"
		}
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%s\n", rank, m.ID, m.Step, m.MicroBatches, phase, m.Address,
			m.PID, m.Host)
	}
	_ = t.Flush()
}

// drawable says whether f is a terminal that understands escape codes.
func drawable(f *os.File, kind string) bool {
	return kind != "" && kind != "dumb" && term.IsTerminal(int(f.Fd()))
}

func statusCommand() *cobra.Command {
	var where whereFlags
	var watch bool
	cmd := &cobra.Command{Use: "status", Short: "Show generation, step, members, coordinator and ledger of a " +
		"running job, or how a run ended", Args: noArgs}
	where.register(cmd)
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "again every second, until interrupted")
	cmd.RunE = interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
		over := func(err error) error {
			is, unsure := where.isOver(err)
			if unsure != nil {
				return unsure
			}
			if is {
				return printEnded(ctx, where.dir, *output, cmd.OutOrStdout(), cmd.ErrOrStderr())
			}
			return err
		}
		c, err := where.dial()
		if err != nil {
			return over(err)
		}
		defer c.Close()
		again := false
		for {
			s, err := look(ctx, c)
			if ctx.Err() != nil {
				return errInterrupted
			}
			if err != nil {
				return over(err)
			}
			if *output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			} else {
				var page bytes.Buffer
				switch {
				case watch && drawable(os.Stdout, os.Getenv("TERM")):
					page.WriteString("\033[H\033[2J")
				case again:
					page.WriteString("\n")
				}
				again = true
				s.show(&page)
				_, err = page.WriteTo(cmd.OutOrStdout())
			}
			if err != nil || !watch {
				return err
			}
			select {
			case <-ctx.Done():
				return errInterrupted
			case <-time.After(time.Second):
			}
		}
	})
	return cmd
}
