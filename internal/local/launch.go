package local

import (
	"maps"
	"slices"
)

// Role is what a process of a local cluster does. It is also the name of the command that does it.
type Role string

// The roles of a local cluster's processes.
const (
	Etcd        Role = "etcd"
	Coordinator Role = "coordinator"
	Worker      Role = "worker"
)

// Initial is not one of a cluster's: a coordinator starts it once, for the state of step 0.
const Initial Role = "initial"

// Launch is a child process to start, with its settings. Each setting has the name of the command's flag,
// without dashes.
type Launch struct {
	Role     Role
	Settings map[string]string
}

// With returns a copy of l in which the given settings are added or replaced.
func (l Launch) With(settings ...map[string]string) Launch {
	all := maps.Clone(l.Settings)
	if all == nil {
		all = map[string]string{}
	}
	for _, s := range settings {
		maps.Copy(all, s)
	}
	return Launch{l.Role, all}
}

// Args returns the command line of the process, after the executable's name. No other code writes one.
func (l Launch) Args() []string {
	args := []string{string(l.Role)}
	for _, name := range slices.Sorted(maps.Keys(l.Settings)) {
		args = append(args, "--"+name+"="+l.Settings[name])
	}
	return args
}
