// Package checkpoint keeps checkpoints as files in a directory, one self-contained file each.
//
// # Promises
//
// A checkpoint whose Save returned nil survives a crash of the process and of the machine. A crash at any moment leaves
// the earlier ones whole, and Latest always finds one at least as new as the last that was acknowledged. What is
// damaged is named and skipped, never used and never removed before a newer valid one exists.
//
// # Names
//
//	step-00000469-term-0000000012.ckpt   the state after 469 steps, saved by the leader of term 12
//	.step-...ckpt.tmp                    being written, or left by a crash; swept by the next leader's Save
//	latest                               a symbolic link to the newest name, for people; no program here reads it.
//	                                     While a coordinator leads, to what was the newest a second ago, or newer
//	best                                 likewise, to the one that did best on held-out samples; only with --holdout
//
// A leader that was paused and wakes up can only add a file of its own lower term: it overwrites and removes nothing
// of its successor, and Latest prefers the higher step, then the higher term. A new leader's term is above all that the
// directory has names of (Store.Term).
//
// # Bytes of a file
//
// Integers are little-endian:
//
//	offset   bytes
//	0        8   magic "EVWCKPT3"
//	8        8   M, length of the manifest
//	16       M   manifest, JSON (see Manifest)
//	16+M     P   payload; Evenweave stores the encoding of package state
//	16+M+P   8   P, length of the payload
//	24+M+P   8   H, how many of the payload's first bytes the hash covers
//	32+M+P   32  SHA-256 of the bytes up to 16+M+H, and of the 16 bytes before it
//
// The payload is the encoding of package state: a head of H bytes and then the image, which is the rest. The head ends
// with the SHA-256 of each MiB of the image (the last block may be shorter): so each byte is hashed once, and damage is
// found block by block. Each tensor of the manifest starts at its offset in the image, in row-major order. So a program
// in any language needs a JSON parser and a few lines to get at the weights; for Go, see Load and the example.
//
// Formats 1 (float32 only, offsets in elements) and 2 (a hash of all bytes) were written by builds made before 29
// November 2026, and are refused by name.
package checkpoint
