package cniconf

import (
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
)

// The codes of docs/cni.md, each with the circumstances that lead to it. Nothing is left behind by what fails.
func TestCodes(t *testing.T) {
	if *pluginPath != "" {
		t.Skip("-plugin is set, and these are the codes of offload-cni")
	}
	r := newRig(t)
	first, second := r.container(2), r.container(3)
	brief := map[string]any{"timeout": "3s"}
	named := func(c *container, args string) *container { return c.with(map[string]string{"CNI_ARGS": args}) }
	fails := func(what string, c *container, extra map[string]any, code uint, words string) {
		t.Helper()
		before := r.ports()
		r.refuses(what, words, code)(c.run("ADD", newest, extra))
		if after := r.ports(); !slices.Equal(before, after) {
			t.Errorf("%s: ports of the bridge: before %v, after %v", what, before, after)
		}
	}

	fails("unknown logical port", named(second, "LogicalPort=nobody"), brief, 11, "LPORT_NOT_FOUND")
	for _, args := range []string{
		"x", "=", "LogicalPort", "LogicalPort=c3;LogicalPort=c3", "LogicalPort=c3;Other=1", "LogicalPort=c3 ", "LogicalPort=\x1b[2J",
		"LogicalPort=$(reboot);`id`\n", "LogicalPort=" + strings.Repeat("x", 300), strings.Repeat(";", 70000),
	} {
		fails("hostile CNI_ARGS", named(second, args), nil, environment, "CNI_ARGS")
	}
	fails("misspelt key", second, map[string]any{"logicalport": "c3"}, invalidConfig, "logicalport")
	fails("bad address", second, map[string]any{"addresses": []string{"10.0.0.1/33"}}, invalidConfig, "addresses[0]")
	fails("own namespace", second.with(map[string]string{"CNI_NETNS": "/proc/self/ns/net"}), nil, environment, "NETNS_INVALID")
	fails("no namespace", second.with(map[string]string{"CNI_NETNS": "/etc/hostname"}), nil, environment, "NETNS_INVALID")
	fails("namespace gone", second.with(map[string]string{"CNI_NETNS": "/run/netns/cniconf-none"}), nil, environment, "NETNS_GONE")
	r.sh("ip", "-n", second.space, "link", "add", "eth0", "type", "bridge")
	fails("name taken", second, nil, 100, "IFNAME_IN_USE")
	r.sh("ip", "-n", second.space, "link", "del", "eth0")

	// A replay gets the same answer, another request a conflict.
	a := r.must(first.run("ADD", newest, nil))
	again := r.must(first.run("ADD", newest, nil))
	if diff := cmp.Diff(a.raw, again.raw); diff != "" {
		t.Errorf("the replayed ADD (-first +second):\n%s", diff)
	}
	fails("other request", first, map[string]any{"mtu": 1300}, 100, "PORT_CONFLICT")
	fails("logical port in use", named(second, "LogicalPort=c2"), brief, 100, "LPORT_IN_USE")
	fails("MAC in use", second, map[string]any{"mac": "50:54:00:00:00:02", "addresses": []string{"10.0.0.99/24"}, "timeout": "3s"}, 100, "MAC_IN_USE")
	r.must(first.run("DEL", newest, nil))

	// OVN is away: no new containers, the old ones go on and can be removed.
	l, n := r.lab, r.lab.Node("n1")
	r.must(first.run("ADD", newest, nil))
	l.Check(l.Stop("sb"))
	l.Eventually(20*time.Second, "STATUS notices that the Southbound is away", func() bool {
		a, err := second.run("STATUS", newest, nil)
		return err == nil && a.code() == 50
	})
	fails("Southbound away", second, brief, 11, "SB_DISCONNECTED")
	l.Eventually(30*time.Second, "STATUS says that containers are affected", func() bool {
		a, err := second.run("STATUS", newest, nil)
		return err == nil && a.code() == 51
	})
	r.must(first.run("DEL", newest, nil))
	l.Check(l.Resume(t.Context(), "sb"))
	healthy := func() bool {
		a, err := second.run("STATUS", newest, nil)
		return err == nil && a.Code == nil
	}
	l.Eventually(30*time.Second, "STATUS is well again", healthy)

	// Open vSwitch is away: nothing can come or go, and DEL says so.
	r.must(first.run("ADD", newest, nil))
	l.Check(n.Stop("ovsdb-server"))
	l.Eventually(20*time.Second, "STATUS notices that Open vSwitch is away", func() bool { return !healthy() })
	r.refuses("Open vSwitch away", "OVSDB_DISCONNECTED", 11)(second.run("ADD", newest, brief))
	r.refuses("DEL without Open vSwitch", "OVSDB_DISCONNECTED", 11)(first.run("DEL", newest, brief))
	l.Check(n.Resume(t.Context(), "ovsdb-server"))
	l.Eventually(30*time.Second, "STATUS is well again", healthy)
	r.must(first.run("DEL", newest, nil))
	r.must(second.run("DEL", newest, nil))

	// The daemon is away.
	r.must(first.run("ADD", newest, nil))
	l.Check(n.StopAgent(syscall.SIGKILL))
	r.refuses("ADD without a daemon", "DAEMON_UNREACHABLE", 11)(second.run("ADD", newest, nil))
	r.refuses("DEL without a daemon", "DAEMON_UNREACHABLE", 11)(first.run("DEL", newest, nil))
	r.refuses("STATUS without a daemon", "DAEMON_UNREACHABLE", 50)(first.run("STATUS", newest, nil))
	started := make(chan error, 1)
	time.AfterFunc(time.Second, func() { started <- n.StartAgent(lab.Offloadd) })
	r.must(first.run("DEL", newest, nil)) // waits for it
	l.Check(<-started)
	if got := r.ports(); len(got) > 0 {
		t.Errorf("ports of the bridge at the end: %v", got)
	}
}

// ports lists the ports of the bridge that are not ovn's own.
func (r *rig) ports() []string {
	r.t.Helper()
	out, err := r.lab.Node("n1").VSctl(r.t.Context(), "list-ports", "br-int")
	r.lab.Check(err)
	return strings.Fields(out)
}

// Dynamic addresses are those that OVN has chosen.
func TestDynamicAddresses(t *testing.T) {
	if *pluginPath != "" {
		t.Skip("-plugin is set, and this is about OVN")
	}
	r := newRig(t)
	r.lab.NB("set Logical_Switch sw0 other_config:subnet=10.0.7.0/24 -- lsp-add sw0 dyn -- lsp-set-addresses dyn dynamic")
	a := r.must(r.container(2).with(map[string]string{"CNI_ARGS": "LogicalPort=dyn"}).run("ADD", newest, nil))
	if len(a.IPs) != 1 || !netip.MustParsePrefix("10.0.7.0/24").Contains(netip.MustParsePrefix(a.IPs[0].Address).Addr()) {
		t.Errorf("addresses %+v, want one of 10.0.7.0/24", a.IPs)
	}
}
