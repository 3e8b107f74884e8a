package topology

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// The schemas of Debian's packages.
var schemas = map[string]string{
	"nb.db":   "/usr/share/ovn/ovn-nb.ovsschema",
	"sb.db":   "/usr/share/ovn/ovn-sb.ovsschema",
	"conf.db": "/usr/share/openvswitch/vswitch.ovsschema",
}

// A central is the three databases in one server, and ovn-northd(8). It belongs to one goroutine, which is locked to its thread:
// the kernel ends the daemons with it (PR_SET_PDEATHSIG).
type central struct {
	dir     string
	daemons []*exec.Cmd
}

func startCentral(ctx context.Context) (*central, error) {
	dir, err := os.MkdirTemp("/tmp", "topo") // a socket's path is at most 107 bytes
	if err != nil {
		return nil, err
	}
	c := &central{dir: dir}
	for name, schema := range schemas {
		if _, err := c.run(ctx, "ovsdb-tool", "create", name, schema); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	err = c.spawn("ovsdb-server", "--remote=punix:"+c.path("db.sock"), "--unixctl="+c.path("db.ctl"), "nb.db", "sb.db", "conf.db")
	if err == nil {
		err = c.until(ctx, "the database server", func() bool { return accepts(c.path("db.sock")) })
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *central) path(file string) string { return filepath.Join(c.dir, file) }

func (c *central) remote() string { return "unix:" + c.path("db.sock") }

func (c *central) startNorthd() error {
	return c.spawn("ovn-northd", "--ovnnb-db="+c.remote(), "--ovnsb-db="+c.remote(), "--unixctl="+c.path("northd.ctl"))
}

// spawn starts a daemon as a child.
func (c *central) spawn(name string, args ...string) error {
	out, err := os.Create(c.path(name + ".out"))
	if err != nil {
		return err
	}
	defer out.Close() //nolint:errcheck // the child has its own copy
	cmd := exec.Command(name, append(args, "--log-file="+c.path(name+".log"), "-vconsole:off")...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = c.dir, c.env(), out, out
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.daemons = append(c.daemons, cmd)
	return nil
}

func (c *central) env() []string {
	env := append(os.Environ(), "PATH=/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	for _, v := range []string{"OVS_RUNDIR", "OVS_LOGDIR", "OVS_DBDIR", "OVN_RUNDIR", "OVN_LOGDIR", "OVN_DBDIR"} {
		env = append(env, v+"="+c.dir)
	}
	return env
}

// close ends the daemons and removes what they left.
func (c *central) close() error {
	for _, d := range c.daemons {
		_ = d.Process.Kill() // one that has ended is fine
		_ = d.Wait()         // it was killed
	}
	return os.RemoveAll(c.dir)
}

// run runs a program and returns what it prints.
func (c *central) run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stderr bytes.Buffer
	cmd.Dir, cmd.Env, cmd.Stderr = c.dir, c.env(), &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, &stderr)
	}
	return string(out), nil
}

// ctl runs a script of ovn-nbctl(8), ovn-sbctl(8) or ovs-vsctl(8) as one transaction: a command a line.
func (c *central) ctl(ctx context.Context, program, script string, options ...string) (string, error) {
	args := append([]string{"--db=" + c.remote(), "--timeout=30"}, options...)
	fixed := len(args)
	for line := range strings.Lines(script) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		words, err := lab.Words(line)
		if err != nil {
			return "", fmt.Errorf("%s: %w: %s", program, err, line)
		}
		if len(args) > fixed {
			args = append(args, "--")
		}
		args = append(args, words...)
	}
	if len(args) == fixed {
		return "", nil
	}
	return c.run(ctx, program, args...)
}

// accepts reports whether somebody listens on a Unix socket.
func accepts(path string) bool {
	conn, err := net.Dial("unix", path)
	if err == nil {
		_ = conn.Close() // nothing was said
	}
	return err == nil
}

// until asks cond until it holds.
func (c *central) until(ctx context.Context, what string, cond func() bool) error {
	for !cond() {
		select {
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}
