package path

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// The daemon that paths of OVN need is $OFFLOADD, as in other tests.
func TestMain(m *testing.M) {
	if daemon := os.Getenv("OFFLOADD"); daemon != "" {
		if err := os.Setenv("PATH", filepath.Dir(daemon)+":"+os.Getenv("PATH")); err != nil {
			panic(err)
		}
	}
	if len(os.Args) > 2 && os.Args[1] == buildVerb {
		buildAndHang(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == ForwardVerb {
		fmt.Fprintln(os.Stderr, Forward())
		os.Exit(1)
	}
	os.Exit(m.Run())
}
