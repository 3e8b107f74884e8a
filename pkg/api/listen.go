package api

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// Listen listens on a unix socket, taking the place of one on which nobody listens any more. Only the daemon's own user and
// root may connect, and the members of group gid unless that is negative. It refuses a directory in which
// others could put a socket of theirs in its place.
func Listen(path string, gid int) (net.Listener, error) {
	if err := checkDirectory(filepath.Dir(path)); err != nil {
		return nil, fmt.Errorf("listen unix %s: %w", path, err)
	}
	if conn, err := net.Dial("unix", path); err == nil {
		_ = conn.Close()
		return nil, fmt.Errorf("listen unix %s: another process does", path)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	// bind(2) gives the file the mode of the socket, so it never has a wider one: see unix_bind_bsd of net/unix/af_unix.c.
	lc := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if cerr := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	l, err := lc.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if gid >= 0 {
		if err := errors.Join(os.Chown(path, -1, gid), os.Chmod(path, 0o660)); err != nil {
			_ = l.Close()
			return nil, err
		}
	}
	return l, nil
}

// checkDirectory refuses a directory that somebody other than root and we can write to. Those above may be writable for all
// if they are sticky, as /tmp is.
func checkDirectory(dir string) error {
	dir, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return err
	}
	for sticky := os.FileMode(0); ; sticky = os.ModeSticky {
		fi, err := os.Stat(dir)
		if err != nil {
			return err
		}
		st, ok := fi.Sys().(*syscall.Stat_t)
		switch {
		case !ok:
			return fmt.Errorf("directory %s: owner unknown", dir)
		case st.Uid != 0 && int(st.Uid) != os.Geteuid():
			return fmt.Errorf("directory %s: belongs to uid %d", dir, st.Uid)
		case fi.Mode()&0o022 != 0 && fi.Mode()&sticky == 0:
			return fmt.Errorf("directory %s: others may write to it (mode %v)", dir, fi.Mode())
		}
		if dir == "/" {
			return nil
		}
		dir = filepath.Dir(dir)
	}
}
