// Package backend opens GoMLX's backends, and compiles and runs programs on them: XLA's verified plug-ins, with the
// flags and threads that give equal bits in every process, and GoMLX's "go" backend.
//
// A program's inputs and results are Go slices of its caller. Panics of the library become errors. Equal inputs give
// equal bits in every process with the same plug-in and class of processor.
//
// A program that links XLA on Linux keeps what its C code frees, unless glibc's variables say otherwise (malloc.c).
package backend

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/gomlx/compute"
	_ "github.com/gomlx/compute/gobackend" // registers "go"

	"evenweave"
	"evenweave/internal/guard"
)

const (
	// pluginPaths is go-xla's variable. Plug-ins that it leads to are used unverified.
	pluginPaths = "PJRT_PLUGIN_LIBRARY_PATH"

	// singleThread keeps the kernels of an XLA call on one thread; CompileGraph keeps them in one part. A worker runs
	// several micro-batches at once instead: the same bits whatever the number of cores, and faster.
	singleThread = "--xla_cpu_multi_thread_eigen=false"

	// portable makes CPUs of different kinds give the same bits, for programs whose operations leave them one order of
	// adding up (fashion/cnn/portable.go).
	portable = "--xla_cpu_enable_platform_dependent_math=false"

	// deterministic makes XLA choose a GPU's kernels by rule. By default it measures them and chooses the fastest: two
	// members, or a member and its successor, may then compute other bits. Without measuring, XLA also opens in a
	// fraction of the time.
	deterministic = "--xla_gpu_deterministic_ops=true"
)

// Choice is what a task's users may choose: these names, or all that there are, "auto" first.
func Choice(names ...string) evenweave.Backends {
	if len(names) == 0 {
		names = []string{"auto", "xla", "xla:cuda", "go"}
	}
	return evenweave.Backends{Names: names, Resolve: Resolve, Versions: versions}
}

// Resolve returns the backend that "auto" stands for on this machine, with a notice where that is not XLA. Any other
// name it returns as it is, if that backend opens.
func Resolve(want string) (name, notice string, err error) {
	b, name, notice, err := Open(want)
	if err != nil {
		return "", "", err
	}
	b.Finalize()
	return name, notice, nil
}

// Open creates the backend for "auto", "xla", "xla:cuda" or "go" and returns its name. The notice is not empty where
// "auto" had to settle for "go", or where XLA's plug-in is not verified. The caller finalizes the backend.
func Open(want string) (b compute.Backend, name, notice string, err error) {
	defer guard.RecoverThrown(&err, "opening backend "+want)
	switch want {
	case "auto", "":
		b, notice, err := openXLA("cpu")
		if err == nil {
			return b, "xla", notice, nil
		}
		b, goErr := compute.NewWithConfig("go:ops_sequential")
		return b, "go", "training on the slower \"go\" backend: " + err.Error(), goErr
	case "xla":
		b, notice, err = openXLA("cpu")
	case "xla:cuda":
		b, notice, err = openXLA("cuda")
	case "go":
		b, err = compute.NewWithConfig("go:ops_sequential")
	default:
		err = fmt.Errorf("unknown backend %q: choose auto, xla, xla:cuda or go", want)
	}
	return b, want, notice, err
}

// openXLA loads XLA's plug-in ("cpu" or "cuda"). The notice is not empty where the plug-in is not verified.
func openXLA(kind string) (b compute.Backend, notice string, err error) {
	defer guard.RecoverThrown(&err, "loading XLA's plug-in")
	if !xlaBuilt {
		return nil, "", errors.New("this build has no XLA (it needs cgo, on Linux or on macOS arm64)")
	}
	forbidDownload()
	fetch, options := "make setup", ""
	if kind == "cpu" {
		err = keepToOneThread()
	} else {
		fetch = "make setup-cuda"
		err = addXLAFlag(deterministic)
		// The library guesses by the path whether buffers are shared. And it would cut factors to TF32's ten bits,
		// which Muon's rounds do not bear.
		options = ",shared_buffers=false,tf32=false"
	}
	if err != nil {
		return nil, "", err
	}
	plugin := kind
	if paths := os.Getenv(pluginPaths); paths != "" {
		notice = fmt.Sprintf("%s=%s: XLA's plug-in is taken from there, and it is not verified", pluginPaths, paths)
	} else if plugin, _, err = findPlugin(kind); err != nil {
		return nil, "", err
	}
	b, err = compute.NewWithConfig("xla:" + plugin + options)
	if err != nil {
		return nil, "", fmt.Errorf("XLA's %s plug-in cannot be used: %w (`%s` fetches it)", kind, err, fetch)
	}
	return b, notice, nil
}

// keepToOneThread makes each call on a CPU run on one thread.
func keepToOneThread() error {
	// XLA sizes its pool of threads by NPROC, and makes four at least. Those that have no work wait busily: with six, a
	// call takes a tenth longer.
	if os.Getenv("NPROC") == "" {
		if err := os.Setenv("NPROC", "1"); err != nil {
			return err
		}
	}
	return errors.Join(addXLAFlag(singleThread), addXLAFlag(portable))
}

// addXLAFlag adds a flag to those that the plug-in reads when its first client is created. The user's own flags come
// after it and so override it.
func addXLAFlag(flag string) error {
	flags := os.Getenv("XLA_FLAGS")
	if strings.Contains(flags, flag) {
		return nil
	}
	return os.Setenv("XLA_FLAGS", strings.TrimSpace(flag+" "+flags))
}
