// Package evenweave holds the words that a training task is made of. It imports nothing of this project.
package evenweave
