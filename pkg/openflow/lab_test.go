package openflow

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// testBridge is a bridge of an ovs-vswitchd of this test process's own, without any real port.
type testBridge struct {
	dir string
}

var bridge struct {
	sync.Once
	b   *testBridge
	err error
}

// newBridge returns the process's bridge, without flows and groups. TestMain stops the daemons.
func newBridge(t testing.TB) *testBridge {
	t.Helper()
	bridge.Do(func() { bridge.b, bridge.err = startBridge() })
	if bridge.err != nil {
		t.Fatalf("Open vSwitch does not start: %v", bridge.err)
	}
	bridge.b.ofctl(t, "del-flows", "br0")
	bridge.b.ofctl(t, "del-groups", "br0")
	return bridge.b
}

func startBridge() (*testBridge, error) {
	dir, err := os.MkdirTemp("/tmp", "of")
	if err != nil {
		return nil, err
	}
	b := &testBridge{dir: dir}
	db := filepath.Join(dir, "db.sock")
	for _, args := range [][]string{
		{"ovsdb-tool", "create", filepath.Join(dir, "conf.db"), "/usr/share/openvswitch/vswitch.ovsschema"},
		{
			"ovsdb-server", "--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off",
			"--remote=punix:" + db, filepath.Join(dir, "conf.db"),
		},
		{"ovs-vsctl", "--db=unix:" + db, "--no-wait", "init"},
		{
			"ovs-vswitchd", "--detach", "--no-chdir", "--pidfile", "--log-file", "-vconsole:off",
			"--enable-dummy=override", "--disable-system", "unix:" + db,
		},
		{
			"ovs-vsctl", "--db=unix:" + db, "--timeout=30", "add-br", "br0", "--",
			"set", "bridge", "br0", "datapath_type=dummy", "fail_mode=secure",
		},
	} {
		if out, err := b.run(args...); err != nil {
			return nil, fmt.Errorf("%s: %w\n%s", strings.Join(args, " "), err, out)
		}
	}
	return b, nil
}

func (b *testBridge) stop() {
	for _, daemon := range []string{"ovs-vswitchd", "ovsdb-server"} {
		_, _ = b.run("ovs-appctl", "-t", daemon, "exit")
	}
	_ = os.RemoveAll(b.dir)
}

// run runs a program of Open vSwitch with its directories below b.dir.
func (b *testBridge) run(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "OVS_RUNDIR="+b.dir, "OVS_LOGDIR="+b.dir, "OVS_DBDIR="+b.dir,
		"PATH=/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (b *testBridge) ofctl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := b.run(append([]string{"ovs-ofctl", "-O", "OpenFlow15"}, args...)...)
	if err != nil {
		t.Fatalf("ovs-ofctl %s: %v\n%s", strings.Join(args, " "), err, out)
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
	if bridge.b != nil {
		bridge.b.stop()
	}
	os.Exit(code)
}
