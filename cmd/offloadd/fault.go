//go:build !faults

package main

// fault is ports.Options.Fault: only a daemon built for tests, with the tag faults, has one.
var fault func(point string)
