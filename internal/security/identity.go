package security

import (
	"crypto/x509"
	"fmt"
	"slices"
	"strings"

	"evenweave/internal/job"
)

// Role is what a process may do in a job. Its certificate says it.
type Role string

// The roles.
const (
	Worker      Role = "worker"
	Coordinator Role = "coordinator"
	Etcd        Role = "etcd"
	Operator    Role = "operator" // a person: status, blame, scale, checkpoints
	Metrics     Role = "metrics"  // what collects metrics
)

// Roles lists all roles.
func Roles() []Role { return []Role{Etcd, Coordinator, Worker, Operator, Metrics} }

const domain = ".evenweave.internal"

// Identity is the holder of a certificate.
type Identity struct {
	Role Role
	Job  string // its name
}

// Name is the one DNS name in a certificate. No machine has it: a client asks for the role and job that it expects,
// whatever address it dials.
func (i Identity) Name() string { return string(i.Role) + "." + i.Job + domain }

// identify reads the identity in a certificate, which must have been verified.
func identify(c *x509.Certificate) (Identity, error) {
	if len(c.DNSNames) != 1 || len(c.IPAddresses)+len(c.EmailAddresses)+len(c.URIs) > 0 {
		return Identity{}, fmt.Errorf("a certificate has the names %q: expected one, ROLE.JOB%s", shown(c), domain)
	}
	role, rest, _ := strings.Cut(c.DNSNames[0], ".")
	name, ok := strings.CutSuffix(rest, domain)
	i := Identity{Role(role), name}
	if !ok || !slices.Contains(Roles(), i.Role) || job.CheckName(name) != nil {
		return Identity{}, fmt.Errorf("a certificate has the name %q: expected ROLE.JOB%s", shown(c), domain)
	}
	return i, nil
}

// shown are a certificate's names as they may be printed.
func shown(c *x509.Certificate) string { return job.Clean(strings.Join(c.DNSNames, ", ")) }
