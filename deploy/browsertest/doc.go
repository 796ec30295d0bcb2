// Package browsertest looks at the live page of a real run in a real Chromium. It is a module of its own, so that what
// drives the browser is no dependency of Evenweave. `make test-browser` runs it.
package browsertest
