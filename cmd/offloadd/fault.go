//go:build !faults

package main

// faults returns ports.Options.Fault. Only a daemon built for tests, with the tag faults, has any.
func faults(string) func(point string) { return nil }
