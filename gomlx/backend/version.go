package backend

import (
	"os"
	"runtime/debug"
	"slices"

	"evenweave"
)

// versions says what computes: GoMLX's modules, and the plug-ins of XLA that are there. No plug-in is opened.
func versions() (all []evenweave.Version) {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if slices.Contains([]string{"github.com/gomlx/gomlx", "github.com/gomlx/compute",
				"github.com/gomlx/go-xla"}, m.Path) {
				if m.Replace != nil {
					m = m.Replace
				}
				all = append(all, evenweave.Version{Name: m.Path, Version: m.Version})
			}
		}
	}
	if !xlaBuilt {
		return append(all, evenweave.Version{Name: "XLA", Version: "none: this build has no XLA"})
	}
	if paths := os.Getenv(pluginPaths); paths != "" {
		return append(all, evenweave.Version{Name: "XLA's plug-in", Version: "unverified, from " + paths})
	}
	for _, kind := range []string{"cpu", "cuda"} {
		v := evenweave.Version{Name: "XLA's " + kind + " plug-in", Version: "none"}
		path, sum, err := findPlugin(kind)
		switch {
		case err == nil:
			v.Version = "SHA-256 " + sum + ", " + path
		case path != "":
			v.Version = "not usable: " + err.Error()
		}
		all = append(all, v)
	}
	return all
}
