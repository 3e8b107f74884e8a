package path

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

// ours are the names of namespaces and directories that paths have: opr, the number of the path, and what it is.
var ours = regexp.MustCompile(`^opr[0-9]+-(pod1|pod2|node1|node2|overlay1|overlay2|start)$`)

// Clean removes what a killed process has left: its processes in the namespaces of paths, these, and the directories below dir (empty:
// Root). It returns what that was, sorted; a second call finds nothing. It fails with ErrBusy while a process has paths.
func Clean(ctx context.Context, dir string) ([]string, error) {
	l, err := acquire(ctx, false)
	if err != nil {
		return nil, err
	}
	if dir == "" {
		dir = Root
	}
	removed, err := sweep(dir)
	return removed, errors.Join(err, l.release())
}

// sweep is Clean with the lock held. Processes go first: they are found by the namespaces.
func sweep(dir string) ([]string, error) {
	var removed []string
	spaces, err := list(netnsdir.Path)
	if err != nil {
		return nil, fmt.Errorf("path clean: %w", err)
	}
	inside := map[inode]bool{}
	for _, path := range spaces {
		if id, err := identify(path); err == nil {
			inside[id] = true
		}
	}
	killed, err := killInside(inside)
	for _, pid := range killed {
		removed = append(removed, "process "+strconv.Itoa(pid))
	}
	errs := []error{err}
	for _, path := range spaces {
		errs = append(errs, removeSpace(path))
		removed = append(removed, path)
	}
	dirs, err := list(dir)
	errs = append(errs, err)
	for _, path := range dirs {
		errs = append(errs, os.RemoveAll(path))
		removed = append(removed, path)
	}
	if err := errors.Join(errs...); err != nil {
		return removed, fmt.Errorf("path clean: %w", err)
	}
	return removed, nil
}

// list returns what is ours in a directory, sorted.
func list(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	for _, e := range entries {
		if ours.MatchString(e.Name()) {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found, err
}

// An inode tells namespaces apart.
type inode struct{ dev, ino uint64 }

func identify(path string) (inode, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return inode{}, err
	}
	return inode{st.Dev, st.Ino}, nil
}

// killInside ends the processes that are in one of the namespaces, and waits until there are none.
func killInside(spaces map[inode]bool) ([]int, error) {
	if len(spaces) == 0 {
		return nil, nil
	}
	var killed []int
	known := map[int]bool{}
	deadline := time.Now().Add(10 * time.Second)
	for {
		found, err := processes(spaces)
		if err != nil || len(found) == 0 {
			return killed, err
		}
		if time.Now().After(deadline) {
			return killed, fmt.Errorf("processes %v do not end", found)
		}
		for _, pid := range found {
			if !known[pid] {
				known[pid] = true
				killed = append(killed, pid)
			}
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
		}
		<-time.After(2 * time.Millisecond)
	}
}

// processes returns those that are in one of the namespaces, without this one. What has ended and is not waited for is in none.
func processes(spaces map[inode]bool) ([]int, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, err
	}
	var found []int
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || pid == 1 {
			continue
		}
		if id, err := identify(filepath.Join("/proc", e.Name(), "ns/net")); err == nil && spaces[id] {
			found = append(found, pid)
		}
	}
	return found, nil
}
