package cli

import (
	"cmp"
	"errors"
	"log/slog"
	"strings"

	"github.com/spf13/pflag"

	"evenweave/internal/security"
)

// secureFlags name the certificates by which a process of a cluster proves its role.
type secureFlags struct {
	files    security.Files
	insecure bool
}

func (s *secureFlags) register(f *pflag.FlagSet) {
	f.StringVar(&s.files.CA, "tls-ca", "",
		"certificates of the authorities that the cluster's processes are vouched by, PEM")
	f.StringVar(&s.files.Cert, "tls-cert", "", "this process's certificate, PEM")
	f.StringVar(&s.files.Key, "tls-key", "", "its private key, PEM")
	f.BoolVar(&s.insecure, "insecure", false, "no TLS: every process that reaches a port is served")
}

// given reports whether the flags name a certificate.
func (s *secureFlags) given() bool { return s.files != security.Files{} }

// transport returns the transport by which a process of one of the roles reaches the cluster at these endpoints. It
// refuses plain TCP without --insecure.
func (s *secureFlags) transport(endpoints []string, job string, roles ...security.Role) (
	*security.Transport, error) {
	over := security.For(endpoints)
	local := !over.Insecure() // a Unix socket: the kernel checks the user
	var plain string
	for _, e := range endpoints {
		if strings.HasPrefix(e, "http://") {
			plain = e
		}
	}
	switch f := s.files; {
	case s.given() && s.insecure:
		return nil, usagef("--insecure and --tls-*: choose one")
	case s.given() && local:
		return nil, usagef("--tls-*: a cluster at a Unix socket has no TLS; leave them out")
	case s.given() && (f.CA == "" || f.Cert == "" || f.Key == ""):
		return nil, usagef("--tls-ca, --tls-cert and --tls-key go together: give all three")
	case s.given() && plain != "":
		return nil, usagef("--etcd %s is not over TLS: write https://, or leave out --tls-* and accept the risk with "+
			"--insecure", plain)
	case s.given():
		var wrong error // with the role that is expected first
		for _, role := range roles {
			keys, err := security.Load(f, security.Identity{Role: role, Job: job})
			if err == nil {
				return security.Over(keys), nil
			}
			wrong = cmp.Or(wrong, err)
		}
		return nil, errors.Join(errors.New("the certificate cannot be used"), wrong)
	case local || s.insecure:
		return over, nil
	}
	return nil, usagef("a cluster over TCP needs certificates: give --tls-ca, --tls-cert and --tls-key (`evenweave " +
		"certs init` makes them), or accept with --insecure that every process that reaches a port is served")
}

const insecureWarning = "--insecure: every process that reaches a port of this cluster can read its weights, write " +
	"its records and stop it"

// warnInsecure says at each start that there is no protection.
func warnInsecure(log *slog.Logger, over *security.Transport) {
	if over.Insecure() {
		log.Warn(insecureWarning)
	}
}
