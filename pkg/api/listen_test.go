package api

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func TestListen(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "s")
	old := syscall.Umask(0)
	defer syscall.Umask(old)

	l, err := Listen(path, -1)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	if _, err := Listen(path, -1); err == nil || !strings.Contains(err.Error(), "another process does") {
		t.Errorf("on a socket in use: %v", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a crash
	_ = l.Close()
	if _, err := os.Stat(path); err != nil {
		t.Fatal(err)
	}
	l, err = Listen(path, nogroup)
	if err != nil {
		t.Fatalf("in place of a stale socket: %v", err)
	}
	fi, err = os.Stat(path)
	if err != nil || fi.Mode().Perm() != 0o660 || fi.Sys().(*syscall.Stat_t).Gid != nogroup {
		t.Errorf("with a group: mode %v, %v", fi.Mode(), err)
	}
	_ = l.Close()
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

// A directory that others may write to is no place for the socket.
func TestListenDirectory(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "d")
	deep := filepath.Join(dir, "e")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		mode os.FileMode
		uid  int
		want string
	}{
		{0o755, 0, ""},
		{0o775, 0, "others may write"},
		{0o757, 0, "others may write"},
		{0o777 | os.ModeSticky, 0, "others may write"},
		{0o755, nogroup, "belongs to uid"},
	} {
		if err := os.Chmod(dir, c.mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, c.uid, 0); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{filepath.Join(dir, "s"), filepath.Join(deep, "s")} {
			want := c.want
			if c.mode&os.ModeSticky != 0 && filepath.Dir(path) == deep {
				want = "" // nobody can put another deep in its place
			}
			l, err := Listen(path, -1)
			switch {
			case err == nil:
				_ = l.Close()
				if want != "" {
					t.Errorf("%v uid %d: listens on %s", c.mode, c.uid, path)
				}
			case want == "" || !strings.Contains(err.Error(), want):
				t.Errorf("%v uid %d: %v", c.mode, c.uid, err)
			}
		}
	}
	if _, err := Listen(filepath.Join(dir, "none", "s"), -1); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("in no directory: %v", err)
	}
	if _, err := Listen("/"+strings.Repeat("x", 200), -1); err == nil {
		t.Error("a path of 201 bytes is accepted")
	}
}
