// Package netnsdir is the directory of named network namespaces, ip-netns(8).
package netnsdir

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Path is the directory.
const Path = "/run/netns"

// Share makes it a shared mount point, unless it is one, as netns_add of iproute2's ip/ipnetns.c does before the first namespace. Packages
// that make namespaces do not: the first `ip netns add` on the machine would then bind the directory over itself, with what
// was mounted in it before still mounted underneath, where no unmount reaches it, so that removing its name is refused (EBUSY). The lock is the one
// that ip takes too: two who bind at the same time would stack mounts.
func Share() error {
	if err := os.MkdirAll(Path, 0o755); err != nil {
		return err
	}
	dir, err := os.Open(Path)
	if err != nil {
		return err
	}
	defer dir.Close() //nolint:errcheck // read-only; closing unlocks
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return fmt.Errorf("lock %s: %w", Path, err)
	}
	share := func() error { return unix.Mount("", Path, "none", unix.MS_SHARED|unix.MS_REC, "") }
	err = share()
	if errors.Is(err, unix.EINVAL) { // not a mount point
		if err := unix.Mount(Path, Path, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
			return fmt.Errorf("mount --rbind %s %[1]s: %w", Path, err)
		}
		err = share()
	}
	if err != nil {
		return fmt.Errorf("mount --make-rshared %s: %w", Path, err)
	}
	return nil
}
