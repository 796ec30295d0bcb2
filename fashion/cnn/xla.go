//go:build cgo && !noxla && ((linux && (amd64 || arm64)) || (darwin && arm64))

package cnn

import "github.com/gomlx/go-xla/compute/xla" // registers "xla"

const xlaBuilt = true

// forbidDownload: fetching a plug-in is `make setup`'s business, opening a
// model must not do it.
func forbidDownload() { xla.EnableAutoInstall(false) }
