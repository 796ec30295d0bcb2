package cli

import (
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
	days     int
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
	cmd.Flags().IntVar(&c.days, "days", 90, "how long certificates are valid")
}

func (c *certsFlags) check() error {
	if err := job.CheckName(c.job); err != nil {
		return usagef("--job %w", err)
	}
	if c.days < 1 || c.days > 3650 {
		return usagef("--days %d: must be from 1 to 3650", c.days)
	}
	return nil
}

func (c *certsFlags) life() time.Duration { return time.Duration(c.days) * 24 * time.Hour }

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
			if c.every == 0 {
				return c.keep(ctx, cmd)
			}
			tick := time.NewTicker(c.every)
			defer tick.Stop()
			for {
				if err := c.keep(ctx, cmd); err != nil && ctx.Err() == nil {
					return err
				}
				select {
				case <-ctx.Done():
					return nil
				case <-tick.C:
				}
			}
		})}
	c.register(cmd)
	f := cmd.Flags()
	f.StringVar(&c.peers, "etcd-peers", "", "make a set for etcd's nodes among themselves too, whose names are below "+
		"this one")
	f.StringVar(&c.secrets, "secrets", "",
		"keep all of it in the Secrets of this pod's namespace that begin with this "+
			"name")
	f.DurationVar(&c.every, "every", 0, "do it again after this time, until asked to end; 0: once")
	return cmd
}

func (c *initFlags) check() error {
	if c.every != 0 && c.every < time.Minute {
		return usagef("--every %v: must be a minute or more", c.every)
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
	a, err := c.authority(cmd)
	if err != nil {
		return err
	}
	say := func(made bool, role security.Role, dir string) {
		if made {
			fmt.Fprintf(cmd.ErrOrStderr(), "made a certificate for role %s in %s\n", role, dir)
		}
	}
	for _, role := range security.Roles() {
		dir := filepath.Join(c.dir, string(role))
		made, err := a.Issue(dir, role, c.life())
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
	made, err := peers.IssuePeer(dir, c.life())
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
			made, err := a.Issue(out, security.Role(role), c.life())
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
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, file := range files {
			s, err := security.Show(file, time.Now())
			if err != nil {
				return err
			}
			if *output == "json" {
				if err := json.NewEncoder(cmd.OutOrStdout()).Encode(s); err != nil {
					return err
				}
				continue
			}
			note := s.Problem
			if note == "" {
				note = fmt.Sprintf("%d days left", int(time.Until(s.NotAfter).Hours()/24))
			}
			fmt.Fprintf(t, "%s\t%s\tuntil %s\t%s\n", s.File, s.Name, s.NotAfter.Format(time.DateOnly), note)
		}
		return t.Flush()
	}
	return cmd
}
