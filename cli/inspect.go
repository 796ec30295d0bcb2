package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os/signal"
	"sort"
	"strconv"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave/cluster"
	"evenweave/job"
	"evenweave/local"
	"evenweave/proto"
)

// whereFlags name a running cluster: by run directory, or by etcd and job.
type whereFlags struct {
	dir  string
	etcd []string
	job  string
}

func (w *whereFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.dir, "dir", "./run", "run directory of a local cluster")
	cmd.Flags().StringSliceVar(&w.etcd, "etcd", nil, "etcd's client URLs, instead of --dir")
	cmd.Flags().StringVar(&w.job, "job", "evenweave", "name of the job in etcd")
}

func (w *whereFlags) dial() (*cluster.Client, error) {
	if len(w.etcd) > 0 {
		if err := checkCluster(&w.etcd, w.job); err != nil {
			return nil, err
		}
		return cluster.Dial(w.etcd, w.job)
	}
	r, err := local.Find(w.dir)
	if err != nil {
		return nil, err
	}
	return cluster.Dial([]string{r.Etcd}, r.Job)
}

// view reads the job's records, which must be there.
func view(ctx context.Context, c *cluster.Client) (cluster.View, error) {
	v, err := c.Read(ctx)
	if err == nil && v.Job == nil {
		err = cluster.ErrNoJob
	}
	return v, err
}

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
	Done             *job.Done      `json:"done,omitempty"`
}

type memberStatus struct {
	ID       string `json:"id"`
	Rank     int    `json:"rank"` // -1: spare
	Address  string `json:"address"`
	PID      int    `json:"pid"`
	Host     string `json:"host"`
	Step     int64  `json:"step"`
	Phase    string `json:"phase"`
	Deal     int    `json:"micro_batches"`
	Answers  bool   `json:"answers"`
	Accuses  string `json:"accuses,omitempty"`
	Repaired int64  `json:"heals,omitempty"`
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

// answer is what a member said.
type answer[R any] struct {
	id    string
	reply R
	err   error
}

// askAll asks every member the same question, at the same time and with a deadline; answers come in the members' order.
func askAll[R any](ctx context.Context, v cluster.View, ask func(context.Context, proto.MemberClient) (R, error)) []answer[R] {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pool := &proto.Pool{}
	defer pool.Close()
	answers := make([]answer[R], len(v.Members))
	var asking sync.WaitGroup
	for i, m := range v.Members {
		a := &answers[i]
		a.id = m.ID
		asking.Go(func() {
			conn, err := pool.Dial(m.Address)
			if err != nil {
				a.err = err
				return
			}
			a.reply, a.err = ask(ctx, proto.NewMemberClient(conn))
		})
	}
	asking.Wait()
	return answers
}

func look(ctx context.Context, c *cluster.Client) (snapshot, error) {
	v, err := view(ctx, c)
	if err != nil {
		return snapshot{}, err
	}
	told := map[string]*proto.Status{} // by those that answer
	for _, a := range askAll(ctx, v, func(ctx context.Context, m proto.MemberClient) (*proto.Status, error) {
		return m.Probe(ctx, &proto.ProbeRequest{Job: v.Job.UUID})
	}) {
		if a.err == nil {
			told[a.id] = a.reply
		}
	}
	s := snapshot{Event: "status", Time: time.Now(), Job: v.Job.UUID, Step: -1, Steps: v.Job.Spec.TotalSteps(), Members: []memberStatus{}, Done: v.Done}
	if v.World != nil {
		s.Generation, s.Reason = v.World.Generation, v.World.Reason
	}
	if l := v.Leader; l != nil {
		s.Coordinator = &leaderStatus{l.ID, l.PID, l.Host, l.Address}
	}
	for _, m := range v.Members {
		ms := memberStatus{ID: m.ID, Rank: -1, Address: m.Address, PID: m.PID, Host: m.Host, Step: -1, Phase: "no answer"}
		if v.World != nil {
			ms.Rank = v.World.Rank(m.ID)
		}
		if p := told[m.ID]; p != nil {
			ms.Answers, ms.Step, ms.Phase, ms.Repaired = true, p.Step, p.Phase, p.Heals
			if p.Accusation != nil {
				ms.Accuses = p.Accusation.Suspect
			}
			if n := len(p.Commits); n > 0 {
				last := p.Commits[n-1]
				if ms.Rank >= 0 && ms.Rank < len(last.Deal) {
					ms.Deal = int(last.Deal[ms.Rank])
				}
				if last.Step >= s.Step {
					s.Loss = &last.Loss
					if nanos := last.ComputeNanos + last.WaitNanos + last.ReduceNanos + last.UpdateNanos; nanos > 0 {
						rate := float64(last.Samples) * 1e9 / float64(nanos)
						s.SamplesPerSecond = &rate
					}
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
	return s, nil
}

func (s snapshot) print(w io.Writer) {
	number := func(f *float64, format string) string {
		if f == nil {
			return "-"
		}
		return fmt.Sprintf(format, *f)
	}
	fmt.Fprintf(w, "job          %s\ngeneration   %d (%s)\nstep         %d of %d\nloss         %s\nsamples/s    %s\n", s.Job, s.Generation, s.Reason, s.Step, s.Steps,
		number(s.Loss, "%.4f"), number(s.SamplesPerSecond, "%.0f"))
	if c := s.Coordinator; c != nil {
		fmt.Fprintf(w, "coordinator  %s, pid %d on %s\n", c.ID, c.PID, c.Host)
	} else {
		fmt.Fprintln(w, "coordinator  none now: steps go on, nothing is published")
	}
	if l := s.Ledger; l != nil {
		fmt.Fprintf(w, "ledger       %d epochs complete, each sample once; %d of %d samples used in the open one\n", l.Epoch, l.Used, l.Samples)
	}
	if d := s.Done; d != nil {
		fmt.Fprintf(w, "done         step %d, complete: %v, checkpoint %s %s\n", d.Step, d.Complete, d.Checkpoint, d.Failure)
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
		fmt.Fprintf(t, "%s\t%s\t%d\t%d\t%s\t%s\t%d\t%s\n", rank, m.ID, m.Step, m.Deal, phase, m.Address, m.PID, m.Host)
	}
	_ = t.Flush()
}

func statusCommand() *cobra.Command {
	var where whereFlags
	var watch bool
	cmd := &cobra.Command{Use: "status", Short: "Show generation, step, members, coordinator and ledger of a running job", Args: noArgs}
	where.register(cmd)
	output := outputFlag(cmd)
	cmd.Flags().BoolVar(&watch, "watch", false, "again every second, until interrupted")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		c, err := where.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		ctx, stop := signal.NotifyContext(cmd.Context(), terminate()...)
		defer stop()
		for {
			s, err := look(ctx, c)
			if ctx.Err() != nil {
				return errInterrupted
			}
			if err != nil {
				return err
			}
			if *output == "json" {
				err = json.NewEncoder(cmd.OutOrStdout()).Encode(s)
			} else {
				var page bytes.Buffer
				if watch {
					page.WriteString("\033[H\033[2J")
				}
				s.print(&page)
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
	}
	return cmd
}

func scaleCommand() *cobra.Command {
	var where whereFlags
	cmd := &cobra.Command{
		Use: "scale N", Short: "Change the worker count of a running local job",
		Long: "Asks the `evenweave train` that runs in --dir to start or retire workers until there are N. Training goes on meanwhile; the weights do not notice.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usagef("scale takes one number: how many workers there shall be")
			}
			return nil
		},
	}
	where.register(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		n, err := strconv.Atoi(args[0])
		if most := local.MaxWorkers(); err != nil || n < 1 || n > most {
			return usagef("scale %q: must be a number from 1 to %d", job.Clean(args[0]), most)
		}
		c, err := where.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		v, err := c.Read(cmd.Context())
		if err != nil {
			return err
		}
		if v.Workers == 0 {
			return fmt.Errorf("no `evenweave train` offers to scale job %q: in Compose use `docker compose up -d --scale worker=%d`, in Kubernetes `kubectl scale`; else try again in a second", where.job, n)
		}
		if _, err := c.SetWorkers(cmd.Context(), n); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "asked for %d workers; see `evenweave status --watch`\n", n)
		return nil
	}
	return cmd
}

func blameCommand() *cobra.Command {
	var where whereFlags
	cmd := &cobra.Command{Use: "blame", Short: "Show the recent collective events of all members, merged by time", Args: noArgs}
	where.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if err := checkOutput(*output); err != nil {
			return err
		}
		c, err := where.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		v, err := view(cmd.Context(), c)
		if err != nil {
			return err
		}
		var events []*proto.BlameEvent
		for _, a := range askAll(cmd.Context(), v, func(ctx context.Context, m proto.MemberClient) (*proto.BlameReply, error) {
			return m.Blame(ctx, &proto.BlameRequest{Job: v.Job.UUID})
		}) {
			if a.err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s does not answer: %v\n", a.id, a.err)
				continue
			}
			events = append(events, a.reply.Events...)
		}
		sort.SliceStable(events, func(i, j int) bool { return events[i].TimeNanos < events[j].TimeNanos })
		for _, e := range events {
			at := time.Unix(0, e.TimeNanos)
			if *output == "json" {
				_ = json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"event": "blame", "time": at, "member": e.Member,
					"generation": e.Generation, "step": e.Step, "what": e.What, "detail": e.Detail})
				continue
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %-12s g%-4d step %-6d %-18s %s\n", at.Format("15:04:05.000"), e.Member, e.Generation, e.Step, e.What, e.Detail)
		}
		return nil
	}
	return cmd
}
