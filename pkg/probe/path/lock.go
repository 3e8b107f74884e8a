package path

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrBusy is returned if another process has paths.
var ErrBusy = errors.New("another probe has paths on this machine")

var lockFile = filepath.Join(Root, "lock")

// A lock is the right to have paths. It ends with the process, so a file that a killed process has left is none.
type lock struct{ file *os.File }

// Hold takes the lock for who has no paths but must not be disturbed, removes what a killed process has left, and returns what gives the lock back. It fails with ErrBusy if
// another process has paths, or waits for that.
func Hold(ctx context.Context, wait bool) (release func() error, err error) {
	l, err := acquire(ctx, wait)
	if err != nil {
		return nil, err
	}
	if _, err := sweep(Root); err != nil {
		return nil, errors.Join(err, l.release())
	}
	return l.release, nil
}

// acquire takes the lock, or says who has it.
func acquire(ctx context.Context, wait bool) (*lock, error) {
	for {
		l, err := tryLock()
		switch {
		case err == nil:
			return l, nil
		case !errors.Is(err, ErrBusy) || !wait:
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func tryLock() (*lock, error) {
	for {
		if err := os.MkdirAll(Root, 0o700); err != nil {
			return nil, fmt.Errorf("path lock: %w", err)
		}
		f, err := os.OpenFile(lockFile, os.O_CREATE|os.O_RDWR, 0o600)
		if errors.Is(err, fs.ErrNotExist) {
			continue // who had the lock has removed the directory
		}
		if err != nil {
			return nil, fmt.Errorf("path lock: %w", err)
		}
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			who, _ := io.ReadAll(f) // empty if it is only just taking it
			return nil, errors.Join(fmt.Errorf("path lock %s: %w (process %s)", lockFile, ErrBusy, strings.TrimSpace(string(who))), f.Close())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("path lock %s: %w", lockFile, err), f.Close())
		}
		// Who had it may have removed the file after it was opened here: then this is a lock on nothing.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if there, err := os.Stat(lockFile); err != nil || !os.SameFile(mine, there) {
			_ = f.Close()
			continue
		}
		err = f.Truncate(0)
		if err == nil {
			_, err = fmt.Fprintln(f, os.Getpid())
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("path lock: %w", err), f.Close())
		}
		return &lock{f}, nil
	}
}

// release gives the lock back. The file goes, and the directory if there is nothing else in it.
func (l *lock) release() error {
	err := os.Remove(lockFile)
	if rm := os.Remove(Root); rm != nil && !errors.Is(rm, unix.ENOTEMPTY) && !errors.Is(rm, fs.ErrNotExist) {
		err = errors.Join(err, rm)
	}
	return errors.Join(err, l.file.Close())
}
