// Package proto holds the messages and services between members and the coordinator, generated from evenweave.proto by
// `make proto`.
package proto
