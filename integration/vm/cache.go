package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cache is the directory of kernels that are ready to boot: $XDG_CACHE_HOME/offloadd/vm, by default
// ~/.cache/offloadd/vm. Each is in a directory whose name says what it was made of; old ones can be removed at any time when no
// guest runs.
func Cache() (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(dir, "offloadd", "vm"), nil
}

// cached returns the directory of that name in the cache. If there is none, make fills one that is then given
// the name; whoever else wants it meanwhile, in this process or another, waits.
func cached(name string, log io.Writer, make func(dir string) error) (string, error) {
	cache, err := Cache()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, name)
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	lock, err := os.OpenFile(dir+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // closing unlocks
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	} else if !errors.Is(err, os.ErrNotExist) {
		return "", err
	}
	fresh := dir + ".new"
	if err := os.RemoveAll(fresh); err != nil {
		return "", err
	}
	if err := os.Mkdir(fresh, 0o755); err != nil {
		return "", err
	}
	start := time.Now()
	if err := make(fresh); err != nil {
		return "", errors.Join(err, os.RemoveAll(fresh))
	}
	fmt.Fprintf(log, "vm: made %s in %v\n", dir, time.Since(start).Round(time.Second))
	return dir, os.Rename(fresh, dir)
}

// output runs a program in a directory and returns what it wrote to standard output. The error of one that fails has
// the end of what it wrote.
func output(ctx context.Context, dir string, argv ...string) (string, error) {
	var out, both strings.Builder
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = io.MultiWriter(&out, &both), &both
	if err := cmd.Run(); err != nil {
		const most = 4000
		said := both.String()
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, said[max(0, len(said)-most):])
	}
	return strings.TrimSpace(out.String()), nil
}
