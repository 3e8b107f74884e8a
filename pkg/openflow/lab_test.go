package openflow

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// testBridge is a bridge of an ovs-vswitchd of this test process's own, without any real port.
type testBridge struct {
	dir     string
	daemons []*exec.Cmd
}

var bridge struct {
	sync.Once
	testBridge
	err error
}

// newBridge returns the process's bridge, without flows and groups. TestMain stops the daemons.
func newBridge(t testing.TB) *testBridge {
	t.Helper()
	b := &bridge.testBridge
	bridge.Do(func() { bridge.err = b.start() })
	if bridge.err != nil {
		t.Fatalf("Open vSwitch does not start: %v", bridge.err)
	}
	b.ofctl(t, "del-flows", "br0")
	b.ofctl(t, "del-groups", "br0")
	return b
}

func (b *testBridge) start() (err error) {
	if b.dir, err = os.MkdirTemp("/tmp", "of"); err != nil { // t.TempDir's paths are too long for sockets
		return err
	}
	db, conf := filepath.Join(b.dir, "db.sock"), filepath.Join(b.dir, "conf.db")
	if _, err := b.run("ovsdb-tool", "create", conf, "/usr/share/openvswitch/vswitch.ovsschema"); err != nil {
		return err
	}
	if err := b.daemon("ovsdb-server", "--remote=punix:"+db, conf); err != nil {
		return err
	}
	vsctl := []string{"ovs-vsctl", "--db=unix:" + db, "--retry", "--timeout=30"}
	if _, err := b.run(append(vsctl, "--no-wait", "init")...); err != nil {
		return err
	}
	if err := b.daemon("ovs-vswitchd", "--enable-dummy=override", "--disable-system", "unix:"+db); err != nil {
		return err
	}
	_, err = b.run(append(vsctl, "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure")...)
	return err
}

// daemon starts a program that ends with this process, however that ends.
func (b *testBridge) daemon(program string, args ...string) error {
	cmd := b.command(context.Background(), program, append([]string{"--no-chdir", "--log-file", "-vconsole:off"}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	b.daemons = append(b.daemons, cmd)
	return nil
}

func (b *testBridge) stop() {
	for _, d := range slices.Backward(b.daemons) {
		_ = d.Process.Kill()
		_ = d.Wait()
	}
	if b.dir != "" {
		_ = os.RemoveAll(b.dir)
	}
}

// command prepares a program of Open vSwitch with its directories below b.dir.
func (b *testBridge) command(ctx context.Context, program string, args ...string) *exec.Cmd {
	if path, err := exec.LookPath(filepath.Join("/usr/sbin", program)); err == nil {
		program = path
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+b.dir, "OVS_LOGDIR="+b.dir, "OVS_DBDIR="+b.dir)
	return cmd
}

// run runs a program to its end and returns what it prints.
func (b *testBridge) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := b.command(ctx, args[0], args[1:]...).CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
	}
	return string(out), err
}

func (b *testBridge) ofctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := b.run(append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (b *testBridge) socket() string { return filepath.Join(b.dir, "br0.mgmt") }

// dial connects to the bridge until the test ends.
func (b *testBridge) dial(t testing.TB) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), b.socket())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func TestMain(m *testing.M) {
	code := m.Run()
	bridge.stop()
	os.Exit(code)
}
