package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"evenweave/internal/job"
)

const variables = "EVENWEAVE_"

// elsewhere lists variables that set no flag: the deployment and the Makefile read them.
var elsewhere = []string{"IMAGE", "XLA", "SUDO", "WORKER_CPUS", "COORDINATOR_CPUS", "STATUS_PORT", "PROMETHEUS_PORT",
	"GRAFANA_PORT", "CERTS_LIFE", "CERTS_EVERY", "CPUID", "FAULTS", "TOOLS", "LIFELINE"}

func variable(flag string) string {
	return variables + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets flags that are not on the command line from their variables. It refuses an empty value for a
// text that has a default: an empty path, address or choice means nothing.
func fromEnvironment(flags *pflag.FlagSet) error {
	var errs []error
	flags.VisitAll(func(f *pflag.Flag) {
		from := "--" + f.Name
		if value, ok := os.LookupEnv(variable(f.Name)); ok && !f.Changed && f.Name != "help" {
			from = variable(f.Name)
			if err := flags.Set(f.Name, value); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", from, err))
				return
			}
		}
		if f.Changed && isEmpty(f.Value.String()) && !isEmpty(f.DefValue) && f.Annotations[mayBeEmpty] == nil {
			errs = append(errs, fmt.Errorf("%s is empty: give it a value, or leave it out for %s", from, f.DefValue))
		}
	})
	if len(errs) > 0 {
		return usageError{errors.Join(errs...)}
	}
	return nil
}

// mayBeEmpty marks a flag with a default whose empty value means something of its own.
const mayBeEmpty = "may be empty"

// isEmpty is for a flag's value as pflag writes it, lists in brackets.
func isEmpty(value string) bool { return strings.Trim(value, "[]") == "" }

// warnUnknown names the variables that look like ours and set nothing in any command, each with the one that may have
// been meant.
func warnUnknown(w io.Writer, root *cobra.Command, environ []string) {
	var known []string
	for _, name := range elsewhere {
		known = append(known, variables+name)
	}
	for _, c := range append(root.Commands(), root) {
		c.Flags().VisitAll(func(f *pflag.Flag) { known = append(known, variable(f.Name)) })
	}
	for _, entry := range environ {
		name, _, _ := strings.Cut(entry, "=")
		if !strings.HasPrefix(name, variables) || strings.HasPrefix(name, variables+"TEST_") ||
			slices.Contains(known, name) {
			continue
		}
		nearest := slices.MinFunc(known, func(a, b string) int { return edits(name, a) - edits(name, b) })
		fmt.Fprintf(w, "warning: %s sets nothing: there is no such flag; the nearest is %s\n", job.Clean(name), nearest)
	}
}

// edits is how many characters must be inserted, removed or replaced to make b of a; only the first 64 count.
func edits(a, b string) int {
	a, b = a[:min(len(a), 64)], b[:min(len(b), 64)]
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			replaced := diagonal
			if a[i] != b[j] {
				replaced++
			}
			diagonal = row[j+1]
			row[j+1] = min(replaced, diagonal+1, row[j]+1)
		}
	}
	return row[len(b)]
}
