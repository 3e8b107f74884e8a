package ports

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/reason"
)

// A port whose namespace has ended is not in the way of one in a namespace that has got the inode. In the same namespace it is.
func TestInodeOfAnother(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can have a network namespace of its own")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := vnetns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = home.Close() }()
	made, err := vnetns.New() // and enters it
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = made.Close() }()
	file := filepath.Join(t.TempDir(), "ns")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("/proc/thread-self/ns/net", file, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Unmount(file, unix.MNT_DETACH) }()
	if err := vnetns.Set(home); err != nil {
		t.Fatal(err)
	}
	ns, err := openNetns(file)
	if err != nil {
		t.Fatal(err)
	}
	defer ns.close()

	spec := Spec{Key: Key{Network: "net", ContainerID: "new", Ifname: "eth0"}, LogicalPort: "new", Netns: file}
	for path, want := range map[string]reason.Reason{file: reason.IfnameInUse, file + "-that-was": "", "/proc/self/ns/net": ""} {
		old := Spec{Key: Key{Network: "net", ContainerID: "old", Ifname: "eth0"}, LogicalPort: "old", Netns: path}
		s := &Service{entries: map[Key]*entry{old.Key: {port: Port{Spec: old}, netns: ns.id}}}
		err := s.admit(spec, ns.id)
		if (err == nil) != (want == "") || want != "" && reason.Of(err) != want {
			t.Errorf("beside a port in %s: %v, want %q", path, err, want)
		}
	}
}
