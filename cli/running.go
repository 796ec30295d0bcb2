package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sort"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"evenweave/internal/cluster"
	"evenweave/internal/job"
	"evenweave/internal/local"
	"evenweave/internal/security"
	"evenweave/proto"
)

// whereFlags name a running cluster: by run directory, or by etcd and job.
type whereFlags struct {
	dir  string
	etcd []string
	job  string
	secureFlags
}

func (w *whereFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.dir, "dir", "./run", "run directory of a local cluster")
	cmd.Flags().StringSliceVar(&w.etcd, "etcd", nil, "etcd's client URLs, instead of --dir")
	cmd.Flags().StringVar(&w.job, "job", "evenweave", "name of the job in etcd")
	w.secureFlags.register(cmd.Flags())
}

func (w *whereFlags) dial() (*cluster.Client, error) {
	if len(w.etcd) > 0 {
		if err := checkCluster(&w.etcd, w.job); err != nil {
			return nil, err
		}
		// A coordinator's certificate is accepted too, so that a person can run the command in the coordinator's
		// container.
		over, err := w.transport(w.etcd, w.job, security.Operator, security.Coordinator)
		if err != nil {
			return nil, err
		}
		return cluster.DialOver(over, w.etcd, w.job)
	}
	r, err := local.Find(w.dir)
	if err != nil {
		return nil, err
	}
	return cluster.Dial([]string{r.Etcd}, r.Job)
}

// isOver reports whether the run in the directory is over, which explains why nothing answers. An error says why this
// cannot be decided.
func (w *whereFlags) isOver(err error) (bool, error) {
	if err == nil || errors.As(err, &usageError{}) || len(w.etcd) > 0 {
		return false, nil
	}
	if local.Over(w.dir) != nil {
		return true, nil
	}
	return coordinatorEnded(w.dir)
}

// explain says that the run is over, if that is why it does not answer.
func (w *whereFlags) explain(err error) error {
	if err == nil || len(w.etcd) > 0 {
		return err
	}
	if over := local.Over(w.dir); over != nil {
		return over
	}
	return err
}

// view reads the job's records, which must be there.
func view(ctx context.Context, c *cluster.Client) (cluster.View, error) {
	v, err := c.Read(ctx)
	if err == nil && v.Job == nil {
		err = cluster.ErrNoJob
	}
	return v, err
}

// answer is what a member said.
type answer[R any] struct {
	id    string
	reply R
	err   error
}

// askAll asks every member the same question, at the same time and with a deadline; answers come in the members' order.
func askAll[R any](ctx context.Context, c *cluster.Client, v cluster.View,
	ask func(context.Context, proto.MemberClient, ...grpc.CallOption) (R, error)) []answer[R] {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pool := &proto.Pool{Options: c.Transport().Options(security.Worker)}
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
			a.reply, a.err = ask(ctx, proto.NewMemberClient(conn), c.Transport().ExpectKeys(v.Keys(m.ID))...)
		})
	}
	asking.Wait()
	return answers
}

func scaleCommand() *cobra.Command {
	var where whereFlags
	cmd := &cobra.Command{
		Use: "scale N", Short: "Change the worker count of a running local job",
		Long: "Asks the `evenweave train` that runs in --dir to start or retire workers until there are N. Training " +
			"goes on meanwhile; the weights do not notice.",
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
			return where.explain(err)
		}
		if v.Workers == 0 {
			return fmt.Errorf("no `evenweave train` offers to scale job %q: in Compose use `docker compose up -d "+
				"--scale worker=%d`, in Kubernetes `kubectl scale`; else try again in a second", where.job, n)
		}
		if _, err := c.SetWorkers(cmd.Context(), n); err != nil {
			return err
		}
		fmt.Fprintf(cmd.ErrOrStderr(), "asked for %d workers; see `evenweave status --watch`\n", n)
		return nil
	}
	return cmd
}

// maxBlame are the bytes of what one member remembers.
const maxBlame = 1 << 20

func blameCommand() *cobra.Command {
	var where whereFlags
	cmd := &cobra.Command{Use: "blame", Short: "Show the recent collective events of all members, merged by time",
		Args: noArgs}
	where.register(cmd)
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, err := where.dial()
		if err != nil {
			return err
		}
		defer c.Close()
		v, err := view(cmd.Context(), c)
		if err != nil {
			return where.explain(err)
		}
		var events []*proto.BlameEvent
		for _, a := range askAll(cmd.Context(), c, v, func(ctx context.Context, m proto.MemberClient,
			to ...grpc.CallOption) (*proto.BlameReply, error) {
			return m.Blame(ctx, &proto.BlameRequest{Job: v.Job.UUID}, append(to, grpc.MaxCallRecvMsgSize(maxBlame))...)
		}) {
			if a.err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s does not answer: %s\n", job.Clean(a.id), job.Clean(a.err.Error()))
				continue
			}
			events = append(events, a.reply.Events...)
		}
		sort.SliceStable(events, func(i, j int) bool { return events[i].TimeNanos < events[j].TimeNanos })
		printBlame(cmd.OutOrStdout(), *output, events)
		return nil
	}
	return cmd
}

func printBlame(w io.Writer, output string, events []*proto.BlameEvent) {
	for _, e := range events {
		at, member, what, detail := time.Unix(0, e.TimeNanos), job.Clean(e.Member), job.Clean(e.What),
			job.Clean(e.Detail)
		if output == "json" {
			_ = json.NewEncoder(w).Encode(map[string]any{"event": "blame", "time": at, "member": member,
				"generation": e.Generation, "step": e.Step, "what": what, "detail": detail})
			continue
		}
		fmt.Fprintf(w, "%s  %-12s g%-4d step %-6d %-18s %s\n", at.Format("15:04:05.000"), member, e.Generation,
			e.Step, what, detail)
	}
}
