//go:build !cgo || noxla || !((linux && (amd64 || arm64)) || (darwin && arm64))

package cnn

const xlaBuilt = false

func forbidDownload() {}
