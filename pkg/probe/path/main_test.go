package path

import (
	"os"
	"testing"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == buildVerb {
		buildAndHang(os.Args[2:])
	}
	os.Exit(m.Run())
}
