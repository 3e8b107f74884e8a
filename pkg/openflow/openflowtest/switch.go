// Package openflowtest starts Open vSwitch for tests of what speaks OpenFlow to it: its daemons in a directory of their
// own, with the dummy datapath, so that neither privileges nor a kernel module are needed.
package openflowtest

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

const schema = "/usr/share/openvswitch/vswitch.ovsschema"

// deadline bounds every wait; it is only reached when something is broken.
const deadline = time.Minute

// A Switch is an ovsdb-server and an ovs-vswitchd.
type Switch struct {
	dir          string
	db, vswitchd *exec.Cmd // nil while they do not run
}

// Start starts a switch without bridges that ends with the test.
func Start(t testing.TB) *Switch {
	t.Helper()
	s, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// Open starts a switch without bridges that runs until Close, or until this process ends, however that happens.
func Open() (*Switch, error) {
	dir, err := os.MkdirTemp("/tmp", "of") // t.TempDir's paths are too long for sockets
	if err != nil {
		return nil, err
	}
	s := &Switch{dir: dir}
	if err := s.start(); err != nil {
		s.Close()
		return nil, fmt.Errorf("start Open vSwitch (on Debian: apt-get install openvswitch-switch): %w", err)
	}
	return s, nil
}

func (s *Switch) start() error {
	conf := filepath.Join(s.dir, "conf.db")
	if _, err := s.Exec("ovsdb-tool", "create", conf, schema); err != nil {
		return err
	}
	var err error
	if s.db, err = s.daemon("ovsdb-server", "--remote=p"+s.Database(), conf); err != nil {
		return err
	}
	if err := s.listens(); err != nil {
		return err
	}
	if _, err := s.vsctl("--no-wait", "init"); err != nil {
		return err
	}
	return s.Resume()
}

// listens waits until the database does. ovs-vsctl --retry would wait for a second at a time.
func (s *Switch) listens() error {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("unix", strings.TrimPrefix(s.Database(), "unix:"))
		if err == nil {
			return c.Close()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return err
		}
	}
}

// Close ends the daemons and removes their directory.
func (s *Switch) Close() {
	s.Kill()
	kill(&s.db)
	_ = os.RemoveAll(s.dir)
}

// Kill ends ovs-vswitchd as a crash does; the database stays.
func (s *Switch) Kill() { kill(&s.vswitchd) }

// Resume starts ovs-vswitchd after Kill. It returns when the bridges of the database are there, without any flows.
func (s *Switch) Resume() error {
	var err error
	if s.vswitchd, err = s.daemon("ovs-vswitchd", "--enable-dummy=override", "--disable-system", s.Database()); err != nil {
		return err
	}
	_, err = s.vsctl("set", "open_vswitch", ".", fmt.Sprintf("external_ids:resumed=%d", time.Now().UnixNano()))
	return err
}

// Dir is where the switch's sockets and logs are, its OVS_RUNDIR.
func (s *Switch) Dir() string { return s.dir }

// Database is the remote of the switch's Open_vSwitch database.
func (s *Switch) Database() string { return "unix:" + filepath.Join(s.dir, "db.sock") }

// Socket is the path of a bridge's management socket.
func (s *Switch) Socket(bridge string) string { return filepath.Join(s.dir, bridge+".mgmt") }

// AddBridge adds a bridge without ports and flows.
func (s *Switch) AddBridge(name string) error {
	_, err := s.vsctl("add-br", name, "--", "set", "bridge", name, "datapath_type=dummy", "fail_mode=secure")
	return err
}

// OFctl runs ovs-ofctl(8) with OpenFlow 1.5 and returns what it prints.
func (s *Switch) OFctl(t testing.TB, args ...string) string {
	t.Helper()
	return s.must(t, append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
}

// VSctl runs ovs-vsctl(8) and returns what it prints, after ovs-vswitchd has done what it says.
func (s *Switch) VSctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := s.vsctl(args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// AppCtl runs ovs-appctl(8) on ovs-vswitchd and returns what it prints.
func (s *Switch) AppCtl(t testing.TB, args ...string) string {
	t.Helper()
	return s.must(t, append([]string{"ovs-appctl"}, args...)...)
}

func (s *Switch) must(t testing.TB, argv ...string) string {
	t.Helper()
	out, err := s.Exec(argv...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (s *Switch) vsctl(args ...string) (string, error) {
	return s.Exec(append([]string{"ovs-vsctl", "--db=" + s.Database(), "--timeout=30"}, args...)...)
}

// Exec runs a program of Open vSwitch to its end and returns what it prints.
func (s *Switch) Exec(argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), deadline)
	defer cancel()
	out, err := s.command(ctx, argv...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out), err
}

func (s *Switch) command(ctx context.Context, argv ...string) *exec.Cmd {
	program := argv[0]
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", program)); err == nil {
		program = path // where Debian has the daemons, and not everybody's PATH
	}
	cmd := exec.CommandContext(ctx, program, argv[1:]...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+s.dir, "OVS_LOGDIR="+s.dir, "OVS_DBDIR="+s.dir)
	return cmd
}

// daemon starts a program that ends with this process. Pdeathsig means the thread that starts it, so tests must not end
// threads, as by runtime.LockOSThread without an unlock. Waiting in a goroutine would avoid that, and be found as a leak.
func (s *Switch) daemon(argv ...string) (*exec.Cmd, error) {
	cmd := s.command(context.Background(), append(argv, "--no-chdir", "--pidfile", "--log-file", "-vconsole:off")...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	return cmd, cmd.Start()
}

func kill(daemon **exec.Cmd) {
	if d := *daemon; d != nil && d.Process != nil {
		_ = d.Process.Kill()
		_ = d.Wait()
	}
	*daemon = nil
}
