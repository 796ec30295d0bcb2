package cnn

import (
	"evenweave"
	"evenweave/gomlx/backend"
)

// Resolve says which backend "auto" stands for on this machine, with the reason where it is not XLA; other names are
// tried and kept.
func Resolve(want string) (name, notice string, err error) { return backend.Resolve(want) }

// Versions is for evenweave.Task: it says which GoMLX and which plug-ins of XLA there are.
func Versions() []evenweave.Version { return backend.Versions() }
