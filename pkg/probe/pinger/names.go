package pinger

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"
)

// names knows which network namespaces still have their names. A socket keeps its namespace, and all devices in it, so a namespace that has lost
// its name has to be left: nobody would see that it is gone.
type names struct {
	fd   int // of inotify
	gone chan struct{}

	mu   sync.Mutex
	dirs map[string]int  // watches
	lost map[string]bool // by path, whether its name was removed since it was watched
}

func newNames() (*names, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	n := &names{fd: fd, gone: make(chan struct{}, 1), dirs: map[string]int{}, lost: map[string]bool{}}
	// It ends with the process.
	go n.read(os.NewFile(uintptr(fd), "inotify"))
	return n, nil
}

// watch makes sure that the end of a name is noticed, and that it is there.
func (n *names) watch(path string) error {
	dir := filepath.Dir(path)
	if strings.HasPrefix(path, "/proc/") {
		return fmt.Errorf("network namespace %s: it has no name that could be seen to end", path)
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if _, ok := n.dirs[dir]; !ok {
		wd, err := unix.InotifyAddWatch(n.fd, dir, unix.IN_DELETE|unix.IN_MOVED_FROM|unix.IN_ONLYDIR)
		if err != nil {
			return fmt.Errorf("watch %s: %w", dir, err)
		}
		n.dirs[dir] = wd
	}
	if _, err := os.Lstat(path); err != nil {
		return err
	}
	n.lost[path] = false
	return nil
}

// known reports whether a path has had a name ever since it was watched.
func (n *names) known(path string) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return !n.lost[path]
}

// only forgets everything about paths that a plan does not have.
func (n *names) only(plan Plan) {
	n.mu.Lock()
	defer n.mu.Unlock()
	keep, dirs := map[string]bool{}, map[string]bool{}
	for _, p := range plan.Pairs {
		keep[p.From.Netns], dirs[filepath.Dir(p.From.Netns)] = true, true
	}
	for _, p := range plan.Answers {
		keep[p.At.Netns], dirs[filepath.Dir(p.At.Netns)] = true, true
	}
	for p := range n.lost {
		if !keep[p] {
			delete(n.lost, p)
		}
	}
	for d, wd := range n.dirs {
		if !dirs[d] {
			_, _ = unix.InotifyRmWatch(n.fd, uint32(wd)) // it may have gone with its directory
			delete(n.dirs, d)
		}
	}
}

func (n *names) read(events *os.File) {
	b := make([]byte, 64<<10)
	for {
		got, err := events.Read(b)
		if err != nil {
			return // it has none of its own
		}
		if !n.see(b[:got]) {
			continue
		}
		select {
		case n.gone <- struct{}{}:
		default: // it will be looked at anyway
		}
	}
}

// see takes the kernel's events, and reports whether they concern anything that is watched.
func (n *names) see(b []byte) (concerned bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(b) >= unix.SizeofInotifyEvent {
		e := (*unix.InotifyEvent)(unsafe.Pointer(&b[0]))
		end := unix.SizeofInotifyEvent + int(e.Len)
		name := unix.ByteSliceToString(b[unix.SizeofInotifyEvent:end])
		for dir, wd := range n.dirs {
			if wd != int(e.Wd) {
				continue
			}
			if e.Mask&unix.IN_IGNORED != 0 { // the directory is gone, and all names in it
				delete(n.dirs, dir)
			}
			for path := range n.lost {
				if filepath.Dir(path) == dir && (e.Mask&unix.IN_IGNORED != 0 || filepath.Base(path) == name) {
					n.lost[path], concerned = true, true
				}
			}
		}
		b = b[end:]
	}
	return concerned
}
