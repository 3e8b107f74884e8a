package lab

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// On a machine where nobody has used ip-netns(8) before, a lab's namespaces can be removed after somebody has.
// The test's child sees a machine like that: a mount namespace with an empty /run.
func TestNamespacesBesideIPNetns(t *testing.T) {
	if os.Getenv("LAB_FRESH_RUN") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), "LAB_FRESH_RUN=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: unix.CLONE_NEWNS}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(unix.Mount("tmpfs", "/run", "tmpfs", 0, ""))
	check(netnsdir.Share())
	_, err := newSpace("before")
	check(err)
	out, err := exec.Command("ip", "netns", "add", "foreign").CombinedOutput()
	if err != nil {
		t.Fatalf("ip netns add: %v: %s", err, out)
	}
	check(netnsdir.Share()) // the next lab
	check(removeSpace("before"))
	left, err := filepath.Glob(netnsdir.Path + "/*")
	check(err)
	if len(left) != 1 || left[0] != netnsdir.Path+"/foreign" {
		t.Errorf("namespaces left: %v, want foreign alone", left)
	}
}
