// Evenweave trains a model on any number of workers with bit-identical results.
package main

import (
	"evenweave/cli"
	"evenweave/fashion"
)

func main() { cli.Main(fashion.Task()) }
