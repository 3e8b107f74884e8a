package ports

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/pkg/reason"
)

// A netns is an open network namespace. It lives at least as long as it is open, whatever becomes of its path.
type netns struct {
	file *os.File
	id   netnsID
}

// A netnsID tells network namespaces apart that exist at the same time: the file's device and inode in nsfs.
type netnsID struct {
	Device uint64 `json:"device"`
	Inode  uint64 `json:"inode"`
}

// openNetns opens what is at path, once, and makes sure that it is a network namespace, and not ours.
func openNetns(path string) (*netns, error) {
	// Without O_NONBLOCK, opening a FIFO would wait for its writer.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ESRCH):
		return nil, reason.Errorf(reason.NetnsGone, "ports netns: %w", err)
	case err != nil:
		return nil, reason.Errorf(reason.NetnsInvalid, "ports netns: %w", err)
	}
	id, err := identify(f)
	if err != nil {
		_ = f.Close()
		return nil, reason.Errorf(reason.NetnsInvalid, "ports netns %s: %w", path, err)
	}
	return &netns{f, id}, nil
}

func (n *netns) close() { _ = n.file.Close() }

// enter calls f on a thread in the namespace, with the namespace that the thread came from and goes back to. Goroutines that f starts
// are not in it.
func (n *netns) enter(f func(home *os.File) error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // if the thread cannot go back it ends with the goroutine
		home, err := os.Open("/proc/thread-self/ns/net")
		if err != nil {
			done <- refused(err, "open our network namespace")
			return
		}
		defer func() { _ = home.Close() }()
		if err := unix.Setns(int(n.file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- refused(err, "enter the network namespace")
			return
		}
		err = f(home)
		if unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}

// leadsTo reports whether a path is that of a namespace. The inode of one that has ended is given to another, so who remembers an inode has to
// look.
func leadsTo(path string, id netnsID) bool {
	ns, err := openNetns(path)
	if err != nil {
		return false
	}
	defer ns.close()
	return ns.id == id
}

func identify(f *os.File) (netnsID, error) {
	var sfs unix.Statfs_t
	if err := unix.Fstatfs(int(f.Fd()), &sfs); err != nil {
		return netnsID{}, fmt.Errorf("fstatfs: %w", err)
	}
	if sfs.Type != unix.NSFS_MAGIC { // so that no driver gets an ioctl that is not meant for it
		return netnsID{}, errors.New("not a namespace")
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil {
		return netnsID{}, fmt.Errorf("NS_GET_NSTYPE: %w", err)
	}
	if kind != unix.CLONE_NEWNET {
		return netnsID{}, errors.New("a namespace, but not one of the network")
	}
	var there, here unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &there); err != nil {
		return netnsID{}, fmt.Errorf("fstat: %w", err)
	}
	if err := unix.Stat("/proc/thread-self/ns/net", &here); err != nil {
		return netnsID{}, fmt.Errorf("our own: %w", err)
	}
	id := netnsID{there.Dev, there.Ino}
	if id == (netnsID{here.Dev, here.Ino}) {
		return netnsID{}, errors.New("the daemon's own network namespace")
	}
	return id, nil
}
