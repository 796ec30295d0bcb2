package cli

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"evenweave/internal/job"
	"evenweave/internal/security"
)

const (
	authorityDir = "ca"     // holds an authority, beside the directories of the roles
	peersDir     = "-peers" // after it: the authority of etcd's nodes
	etcdPeer     = "etcd-peer"
)

type certsFlags struct {
	dir, job string
	any      bool // the authority is of no job in particular
	life     time.Duration
}

// initFlags are those of `certs init` alone.
type initFlags struct {
	certsFlags
	peers, secrets string
	every          time.Duration
}

func (c *certsFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&c.dir, "dir", "./certs",
		"directory of the authority (ca) and of one set of files for each role")
	cmd.Flags().BoolVar(&c.any, "any-job", false,
		"the authority may vouch for processes of any job: for a cluster that runs one job after the other")
	cmd.Flags().StringVar(&c.job, "job", "evenweave", "name of the job: a certificate counts in no other")
	cmd.Flags().DurationVar(&c.life, "life", 90*24*time.Hour, "how long certificates are valid")
}

func (c *certsFlags) check() error {
	if err := job.CheckName(c.job); err != nil {
		return usagef("--job %w", err)
	}
	if c.life < time.Minute || c.life > 3650*24*time.Hour {
		return usagef("--life %v: must be from 1m to 87600h", c.life)
	}
	return nil
}

func (c *certsFlags) authorityDir() string { return filepath.Join(c.dir, authorityDir) }

// authority opens the authority, or makes it.
func (c *certsFlags) authority(cmd *cobra.Command) (*security.Authority, error) {
	dir := c.authorityDir()
	open, of := security.OpenAuthority, "job "+c.job
	if c.any {
		open, of = security.OpenAuthorityOfAll, "any job"
	}
	a, made, err := open(dir, c.job, time.Now())
	if made && err == nil {
		fmt.Fprintf(cmd.ErrOrStderr(),
			"made an authority for %s in %s: with its key a process can be any of the job\n", of, dir)
	}
	return a, err
}

func certsCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "certs", Short: "Make, renew and show the certificates of a cluster's processes",
		Args: noArgs, RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(certsInit(), certsIssue(), certsShow())
	return cmd
}

func certsInit() *cobra.Command {
	var c initFlags
	cmd := &cobra.Command{Use: "init", Args: noArgs,
		Short: "Make an authority and a certificate for each role; renew those that have a third of their time left",
		RunE: interruptible(func(ctx context.Context, cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return c.run(ctx, cmd)
		})}
	c.register(cmd)
	f := cmd.Flags()
	f.StringVar(&c.peers, "etcd-peers", "", "make a set for etcd's nodes among themselves too, whose names are below "+
		"this one")
	f.StringVar(&c.secrets, "secrets", "",
		"keep all of it in the Secrets of this pod's namespace that begin with this "+
			"name")
	f.DurationVar(&c.every, "every", 0, "look again after this time, until asked to end; 0: once")
	return cmd
}

func (c *initFlags) check() error {
	if c.every != 0 && (c.every < 10*time.Second || c.every >= c.life/3) {
		return usagef("--every %v: must be 10s or more, and shorter than a third of --life %v: a certificate is "+
			"renewed when less than that is left", c.every, c.life)
	}
	if c.secrets != "" && os.Getenv("KUBERNETES_SERVICE_HOST") == "" {
		return usagef("--secrets: this is not a pod of a Kubernetes cluster")
	}
	for _, name := range []string{c.peers, c.secrets} {
		if name != "" && job.CheckID(name) != nil {
			return usagef("%q: must be a name of letters, digits and hyphens", job.Clean(name))
		}
	}
	return c.certsFlags.check()
}

// run makes everything, and with --every renews it until ctx ends. What cannot be renewed ends it: what runs it starts
// it again, and shows that.
func (c *initFlags) run(ctx context.Context, cmd *cobra.Command) error {
	if err := c.keep(ctx, cmd); err != nil || c.every == 0 {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "looking every %v for certificates with less than %v left, to renew them\n", c.every,
		c.life/3)
	tick := time.NewTicker(c.every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if err := c.keep(ctx, cmd); err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// keep makes and renews everything once, in the Secrets too if there are any.
func (c *initFlags) keep(ctx context.Context, cmd *cobra.Command) error {
	if c.secrets == "" {
		return c.make(cmd)
	}
	store, err := security.PodSecrets(net.JoinHostPort(os.Getenv("KUBERNETES_SERVICE_HOST"),
		os.Getenv("KUBERNETES_SERVICE_PORT")))
	if err != nil {
		return err
	}
	return security.RenewSecrets(ctx, store, c.layout(), func() error { return c.make(cmd) })
}

// layout says which Secret holds which files: the authorities' first, because the others are useless without them.
func (c *initFlags) layout() []security.Secret {
	own := security.AuthorityIn(c.authorityDir())
	all := []security.Secret{{Name: c.secrets + "-ca", Files: map[string]string{
		"ca.crt": own.Cert, "ca.key": own.Key}}}
	sets := security.Roles()
	if c.peers != "" {
		peers := security.AuthorityIn(c.authorityDir() + peersDir)
		all[0].Files["peers.crt"], all[0].Files["peers.key"] = peers.Cert, peers.Key
		sets = append(sets, etcdPeer)
	}
	for _, role := range sets {
		files := security.FilesIn(filepath.Join(c.dir, string(role)))
		all = append(all, security.Secret{Name: c.secrets + "-" + string(role), Files: map[string]string{
			"ca.crt": files.CA, "tls.crt": files.Cert, "tls.key": files.Key}})
	}
	return all
}

// make makes and renews all files.
func (c *initFlags) make(cmd *cobra.Command) error {
	release, err := security.HoldAuthority(c.authorityDir())
	if err != nil {
		return err
	}
	defer release()
	a, err := c.authority(cmd)
	if err != nil {
		return err
	}
	until := time.Now().Add(c.life).UTC().Format(time.RFC3339)
	say := func(made bool, role security.Role, dir string) {
		if made {
			fmt.Fprintf(cmd.ErrOrStderr(), "made a certificate for role %s in %s, valid until %s\n", role, dir, until)
		}
	}
	for _, role := range security.Roles() {
		dir := filepath.Join(c.dir, string(role))
		made, err := a.Issue(dir, role, c.life)
		if err != nil {
			return err
		}
		say(made, role, dir)
	}
	if c.peers == "" {
		return nil
	}
	peers, _, err := security.OpenPeerAuthority(c.authorityDir()+peersDir, c.peers, time.Now())
	if err != nil {
		return err
	}
	dir := filepath.Join(c.dir, etcdPeer)
	made, err := peers.IssuePeer(dir, c.life)
	if err != nil {
		return err
	}
	say(made, etcdPeer, dir)
	return nil
}

func certsIssue() *cobra.Command {
	var c certsFlags
	var role, out string
	cmd := &cobra.Command{Use: "issue", Args: noArgs,
		Short: "Make one more certificate, for example of a worker that shares none",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			if out == "" {
				return usagef("--out is empty: name the directory that gets the files")
			}
			a, err := c.authority(cmd)
			if err != nil {
				return err
			}
			made, err := a.Issue(out, security.Role(role), c.life)
			if err == nil && !made {
				fmt.Fprintf(cmd.ErrOrStderr(), "the certificate in %s has more than a third of its time left: not "+
					"replaced\n", out)
			}
			return err
		}}
	c.register(cmd)
	var roles []string
	for _, r := range security.Roles() {
		roles = append(roles, string(r))
	}
	chosen(cmd.Flags(), &role, "role", string(security.Worker), "what its holder may do", roles...)
	cmd.Flags().StringVar(&out, "out", "", "directory that gets the files")
	return cmd
}

func certsShow() *cobra.Command {
	var dir string
	cmd := &cobra.Command{Use: "show", Args: noArgs, Short: "Show names and times of the certificates in a directory"}
	cmd.Flags().StringVar(&dir, "dir", "./certs", "as of `certs init`")
	output := outputFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		files, err := filepath.Glob(filepath.Join(dir, "*", "c*.pem"))
		if err != nil {
			return usagef("--dir: %w", err)
		}
		if len(files) == 0 {
			return fmt.Errorf("no certificates are in %s: make them with `evenweave certs init --dir %s`", dir, dir)
		}
		t, bad := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0), 0
		for _, file := range files {
			s, err := security.Show(file, time.Now())
			if err != nil {
				return err
			}
			if s.Problem != "" {
				bad++
			}
			if *output == "json" {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(s); err != nil {
					return err
				}
				continue
			}
			fmt.Fprintf(t, "%s\t%s\tuntil %s\t%s\n", s.File, s.Name, s.NotAfter.Format(time.DateOnly),
				cmp.Or(s.Problem, left(time.Until(s.NotAfter))))
		}
		if err := t.Flush(); err != nil || bad == 0 {
			return err
		}
		return fmt.Errorf("%d of %d certificates in %s cannot be used, or not for long: renew them with `evenweave "+
			"certs init --dir %s`", bad, len(files), dir, dir)
	}
	return cmd
}

// left says how much of a certificate's time is left.
func left(d time.Duration) string {
	if days := int(d.Hours() / 24); days > 1 {
		return fmt.Sprintf("%d days left", days)
	}
	return d.Round(time.Second).String() + " left"
}
