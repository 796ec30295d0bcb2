// Command installxla puts go-xla's own build of XLA's CPU plug-in into a folder,
// for platforms without a pinned one. Usage: installxla DIR
package main

import (
	"fmt"
	"os"

	"github.com/gomlx/go-xla/installer"
)

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: installxla DIR")
		os.Exit(2)
	}
	if err := installer.CPUAutoInstall(os.Args[1], true, installer.Normal); err != nil {
		fmt.Fprintf(os.Stderr, "installing XLA's plug-in into %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}
