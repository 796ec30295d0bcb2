package simulation

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"testing"
	"time"
)

// The product's constants, as TestConstantsAreTheProducts checks. Deadlines and the probe's timeout are imported.
const (
	ttl            = 5 * time.Second
	requestTimeout = 3 * time.Second
	pollInterval   = 2 * time.Second
	tickEvery      = 500 * time.Millisecond
	reportWait     = 5 * time.Second
	saveRetry      = 3 * time.Second
	fetchQuiet     = 10 * time.Second
	restorePause   = 50 * time.Millisecond
	shortestPace   = 50 * time.Millisecond
	pauseFor       = 5 * time.Second // how long a member's reports are void after it was paused

	twoCopies = 4 // members from which on the coordinator sends two copies of a checkpoint
	reserve   = 3 // it is asked for blocks that another member does not send after this part of the deadline

	maxReaders = 4 // spares that catch up with one member at the same time
)

// TestConstantsAreTheProducts: constants that the product does not export have its values here.
func TestConstantsAreTheProducts(t *testing.T) {
	for _, c := range []struct {
		file, name string
		want       time.Duration
	}{
		{"coordinator/saver.go", "reportWait", reportWait},
		{"coordinator/saver.go", "saveRetry", saveRetry},
		{"coordinator/saver.go", "fetchQuiet", fetchQuiet},
		{"coordinator/term.go", "tickEvery", tickEvery},
		{"internal/cluster/client.go", "requestTimeout", requestTimeout},
		{"internal/cluster/watcher.go", "pollInterval", pollInterval},
		{"internal/transfer/download.go", "retryPause", restorePause},
		{"worker/deadlines.go", "pauseFor", pauseFor},
		{"worker/server.go", "shortestPace", shortestPace},
		{"worker/fetch.go", "twoCopies", twoCopies},
		{"internal/transfer/download.go", "reserveAfter", reserve},
		{"worker/logreader.go", "maxReaders", maxReaders},
	} {
		if got := constant(t, filepath.Join("..", "..", c.file), c.name); got != c.want {
			t.Errorf("%s: %s is %v, the simulator has %v", c.file, c.name, got, c.want)
		}
	}
	if got := flagDefault(t, filepath.Join("..", "..", "cli", "processes.go"), "ttl"); got != ttl {
		t.Errorf("--ttl is %v, the simulator has %v", got, ttl)
	}
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// constant is the value of a constant of a file, of the form N or N * time.Unit.
func constant(t *testing.T, file, name string) time.Duration {
	t.Helper()
	found := time.Duration(-1)
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for i, id := range v.Names {
				if id.Name == name && i < len(v.Values) {
					found = duration(v.Values[i])
				}
			}
		}
		return true
	})
	if found < 0 {
		t.Errorf("%s: no constant %s", file, name)
	}
	return found
}

// flagDefault is the default of a duration flag.
func flagDefault(t *testing.T, file, name string) time.Duration {
	t.Helper()
	found := time.Duration(-1)
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if call, ok := n.(*ast.CallExpr); ok && len(call.Args) >= 3 {
			if lit, ok := call.Args[1].(*ast.BasicLit); ok && lit.Value == `"`+name+`"` {
				found = duration(call.Args[2])
			}
		}
		return true
	})
	if found < 0 {
		t.Errorf("%s: no flag --%s", file, name)
	}
	return found
}

func duration(e ast.Expr) time.Duration {
	if n, ok := e.(*ast.BasicLit); ok {
		d, _ := time.ParseDuration(n.Value + "ns")
		return d
	}
	product, ok := e.(*ast.BinaryExpr)
	if !ok || product.Op != token.MUL {
		return -1
	}
	n, ok := product.X.(*ast.BasicLit)
	unit, named := product.Y.(*ast.SelectorExpr)
	if !ok || !named {
		return -1
	}
	d, err := time.ParseDuration(n.Value + map[string]string{"Second": "s", "Millisecond": "ms",
		"Minute": "m"}[unit.Sel.Name])
	if err != nil {
		return -1
	}
	return d
}
