package deviceplugin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// A bell wakes all who wait for it. They look themselves what has happened.
type bell struct {
	mu   *sync.Mutex
	next *chan struct{} // guarded by mu; closed at the next ring
}

func newBell() bell {
	next := make(chan struct{})
	return bell{&sync.Mutex{}, &next}
}

// wait returns what is closed when the bell rings the next time.
func (b bell) wait() <-chan struct{} {
	b.mu.Lock()
	defer b.mu.Unlock()
	return *b.next
}

func (b bell) ring() {
	b.mu.Lock()
	defer b.mu.Unlock()
	close(*b.next)
	*b.next = make(chan struct{})
}

// what happens in a directory, or to it, that may have to do with sockets.
const watched = unix.IN_CREATE | unix.IN_MOVED_TO | unix.IN_DELETE | unix.IN_MOVED_FROM | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

// watch rings the bell when something in kubelet's directory changes, until ctx ends. As long as there is no such directory, it follows the
// one in which it, or one above it, would appear.
func (p *Plugin) watch(ctx context.Context) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("deviceplugin: inotify: %w", err)
	}
	events := os.NewFile(uintptr(fd), "inotify")
	defer context.AfterFunc(ctx, func() { _ = events.Close() })()
	defer func() { _ = events.Close() }()
	buffer := make([]byte, 16<<10)
	for {
		if err := follow(fd, p.dir()); err != nil {
			return err
		}
		p.bell.ring() // also for what happened before it was followed
		if _, err := events.Read(buffer); err != nil {
			return fmt.Errorf("deviceplugin: inotify: %w", err)
		}
	}
}

// follow watches a directory, or the first above it that exists. To watch one again changes nothing.
func follow(fd int, dir string) error {
	for at := dir; ; {
		_, err := unix.InotifyAddWatch(fd, at, watched)
		switch {
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR):
			at = filepath.Dir(at)
			continue
		case err != nil:
			return &fs.PathError{Op: "inotify_add_watch", Path: at, Err: err}
		case at == dir:
			return nil
		}
		// It may have come before the one above was watched.
		next := dir
		for filepath.Dir(next) != at {
			next = filepath.Dir(next)
		}
		if info, err := os.Stat(next); err != nil || !info.IsDir() {
			return nil
		}
		at = dir
	}
}
