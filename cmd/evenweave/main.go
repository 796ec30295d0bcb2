// Evenweave trains a model on any number of workers with bit-identical results.
package main

import (
	"os"

	"evenweave/cli"
)

func main() { os.Exit(cli.Main(os.Args[1:])) }
