package cli

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Texts of all packages name commands as `evenweave train`, since only the command line knows the program's name. Here,
// before a text is printed, the program's name replaces `evenweave`.

const toolCommand = "`evenweave "

// programName is that of the executable, for messages.
func programName() string {
	name := filepath.Base(os.Args[0])
	for _, end := range []string{".exe", ".test"} {
		name = strings.TrimSuffix(name, end)
	}
	return name
}

// named is a text with this program's name in the commands that it names.
func named(program, text string) string {
	return strings.ReplaceAll(text, toolCommand, "`"+program+" ")
}

// namedWriter is where whole lines for a person go.
type namedWriter struct {
	to      io.Writer
	program string
}

func (w namedWriter) Write(lines []byte) (int, error) {
	own := bytes.ReplaceAll(lines, []byte(toolCommand), []byte("`"+w.program+" "))
	if _, err := w.to.Write(own); err != nil {
		return 0, err
	}
	return len(lines), nil
}

// nameHelp does the same to what --help says of a command and of those below it.
func nameHelp(cmd *cobra.Command, program string) {
	cmd.Short, cmd.Long, cmd.Example = named(program, cmd.Short), named(program, cmd.Long), named(program, cmd.Example)
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Usage = named(program, f.Usage) })
	for _, c := range cmd.Commands() {
		nameHelp(c, program)
	}
}

// commandLine makes the commands; their texts use the program's name.
func (p *program) commandLine(out, err io.Writer) (*cobra.Command, error) {
	root, failed := p.root()
	if failed != nil {
		return nil, failed
	}
	root.SetOut(out)
	root.SetErr(namedWriter{err, p.name})
	nameHelp(root, p.name)
	return root, nil
}
