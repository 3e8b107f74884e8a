package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/offloadd/offloadd/internal/netnsdir"
)

const (
	root       = "/tmp" // sockets live here, and their paths may not be longer than 107 bytes
	namePrefix = "ovnlab-"
	lockName   = "lock"
	keepName   = "keep"
	maxName    = 20
)

var (
	labName  = regexp.MustCompile(`^` + namePrefix + `[0-9a-f]{4}$`)
	nodeName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9-]*$`)
)

func validName(s string) bool { return len(s) <= maxName && nodeName.MatchString(s) }

// Sweep removes labs that nobody uses: those whose process is gone. Labs that were started with
// Options.Keep are spared unless kept is true.
func Sweep(kept bool) error {
	unlock, err := lockLabs()
	if err != nil {
		return err
	}
	defer unlock()
	entries, err := os.ReadDir(root)
	if err != nil {
		return fmt.Errorf("lab sweep: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if labName.MatchString(e.Name()) && e.IsDir() {
			errs = append(errs, sweep(e.Name(), kept))
		}
	}
	return errors.Join(errs...)
}

// lockLabs keeps Sweep from seeing a directory that another process has made and not yet locked.
func lockLabs() (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(root, namePrefix+"all.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, fmt.Errorf("lab: lock %s: %w", f.Name(), errors.Join(err, f.Close()))
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}

func sweep(name string, kept bool) error {
	dir := filepath.Join(root, name)
	if _, err := os.Stat(filepath.Join(dir, keepName)); err == nil && !kept {
		return nil
	}
	lock, err := os.Open(filepath.Join(dir, lockName))
	if errors.Is(err, os.ErrNotExist) {
		return Remove(name) // killed in the middle of create or of Remove
	}
	if err != nil {
		return fmt.Errorf("lab sweep %s: %w", name, err)
	}
	defer lock.Close() //nolint:errcheck // read-only
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil //nolint:nilerr // in use
	}
	return Remove(name)
}

// Remove ends the processes of the lab of that name, as far as its pidfiles name any, and deletes its namespaces
// and its directory, whoever uses it.
func Remove(name string) error {
	dir := filepath.Join(root, name)
	for _, pid := range pids(dir) {
		_ = unix.Kill(pid, unix.SIGKILL) // it may have ended meanwhile
	}
	var errs []error
	spaces, err := filepath.Glob(filepath.Join(netnsdir.Path, name+"-*"))
	errs = append(errs, err)
	for _, path := range spaces {
		errs = append(errs, removeSpace(filepath.Base(path)))
	}
	errs = append(errs, os.RemoveAll(dir))
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("lab remove %s: %w", name, err)
	}
	return nil
}

// pids returns the daemons of a lab: the processes with a path below its directory in their command lines. Files with
// process identifiers do not tell, since a daemon writes its own some time after it has been started.
func pids(dir string) []int {
	var found []int
	files, _ := filepath.Glob("/proc/[0-9]*/cmdline") // the pattern is well-formed
	for _, file := range files {
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err != nil || pid <= 1 || pid == os.Getpid() {
			continue
		}
		if cmdline, err := os.ReadFile(file); err == nil && bytes.Contains(cmdline, []byte(dir+"/")) {
			found = append(found, pid)
		}
	}
	return found
}
