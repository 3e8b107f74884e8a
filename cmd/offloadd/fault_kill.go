//go:build faults

package main

import (
	"os"
	"syscall"
)

// fault kills the daemon at the point of ports.FaultPoints that the environment's OFFLOADD_FAULT names.
func fault(point string) {
	if point == os.Getenv("OFFLOADD_FAULT") {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {} // until it arrives
	}
}
