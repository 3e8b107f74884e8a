package path

import (
	"fmt"
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == buildVerb {
		buildAndHang(os.Args[2:])
	}
	if len(os.Args) > 1 && os.Args[1] == ForwardVerb {
		fmt.Fprintln(os.Stderr, Forward())
		os.Exit(1)
	}
	os.Exit(m.Run())
}
