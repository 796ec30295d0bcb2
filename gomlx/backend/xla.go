//go:build cgo && !noxla && ((linux && (amd64 || arm64)) || (darwin && arm64))

package backend

import "github.com/gomlx/go-xla/compute/xla" // registers "xla"

const xlaBuilt = true

// forbidDownload: `make setup` fetches a plug-in, opening a backend must not.
func forbidDownload() { xla.EnableAutoInstall(false) }
