package integration

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
)

// offloadd starts a pair whose first node has offloadd, whatever agent is under test: what it promises beyond what
// ovn-controller does.
func offloadd(t *testing.T, opts lab.Options) (*labtest.Lab, *lab.Node) {
	t.Helper()
	opts.OffloaddPath = labtest.Offloadd(t)
	opts.Nodes = []lab.NodeConfig{{Name: "n1", Agent: lab.Offloadd}, {Name: "n2", Agent: lab.OVNController}}
	l := pair(t, opts)
	return l, l.Node("n1")
}

// control asks the node's offloadd.
func control(l *labtest.Lab, n *lab.Node, args ...string) string {
	l.T.Helper()
	out, err := n.Exec(l.T.Context(), append([]string{"ovs-appctl", "--timeout=20", "-t", filepath.Join(n.Dir, "offloadd.ctl")}, args...)...)
	l.Check(err)
	return out
}

// status returns a line of the node's status.
func status(l *labtest.Lab, n *lab.Node, key string) string {
	l.T.Helper()
	out := control(l, n, "status")
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(line, key+": "); ok {
			return strings.TrimSpace(value)
		}
	}
	l.T.Fatalf("no %q in the status:\n%s", key, out)
	return ""
}

// count is status as a number.
func count(l *labtest.Lab, n *lab.Node, key string) int {
	l.T.Helper()
	v, err := strconv.Atoi(status(l, n, key))
	l.Check(err)
	return v
}

// flowTexts returns the flows of a bridge, sorted.
func flowTexts(l *labtest.Lab, n *lab.Node, bridge string) []string {
	l.T.Helper()
	out, err := n.OFctl(l.T.Context(), "--no-names", "--no-stats", "dump-flows", bridge)
	l.Check(err)
	return slices.Sorted(strings.Lines(out))
}

// youngest returns how long the newest flow of br-int has been there.
func youngest(l *labtest.Lab, n *lab.Node) time.Duration {
	l.T.Helper()
	out, err := n.OFctl(l.T.Context(), "dump-flows", "br-int")
	l.Check(err)
	least := time.Duration(1<<63 - 1)
	for line := range strings.Lines(out) {
		_, rest, ok := strings.Cut(line, "duration=")
		if !ok {
			continue
		}
		text, _, _ := strings.Cut(rest, ",")
		d, err := time.ParseDuration(text)
		l.Check(err)
		least = min(least, d)
	}
	return least
}

// lineCount counts the lines of the agent's log that have all of the texts.
func lineCount(l *labtest.Lab, n *lab.Node, texts ...string) int {
	l.T.Helper()
	log, err := os.ReadFile(n.AgentLog())
	l.Check(err)
	found := 0
	for line := range strings.Lines(string(log)) {
		if !slices.ContainsFunc(texts, func(s string) bool { return !strings.Contains(line, s) }) {
			found++
		}
	}
	return found
}

// get returns columns of the rows that a condition of ovn-sbctl find selects.
func get(l *labtest.Lab, table, columns, condition string) string {
	l.T.Helper()
	return strings.TrimSpace(l.SB("--bare --columns=" + columns + " find " + table + " " + condition))
}

// A signal ends the agent well and leaves everything in place; a new one finds nothing to do. SIGUSR2 compiles
// everything anew, and that comes to the same.
func TestSignals(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{})
	record, zones, flows := chassisRecord(l), ctZones(l), flowTexts(l, n1, "br-int")
	same := func(when string) {
		t.Helper()
		if got := chassisRecord(l); got != record {
			t.Errorf("%s, the chassis record is\n%s\nbefore:\n%s", when, got, record)
		}
		if got := ctZones(l); got != zones {
			t.Errorf("%s, conntrack zones are\n%s\nbefore:\n%s", when, got, zones)
		}
		if diff := cmp.Diff(flows, flowTexts(l, n1, "br-int")); diff != "" {
			t.Errorf("%s, flows differ (-before +now):\n%s", when, diff)
		}
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		stopped := time.Now()
		l.Check(n1.StopAgent(sig))
		if end := n1.AgentEnd(lab.Offloadd); end != "exit status 0" {
			t.Errorf("%v: ended with %s", sig, end)
		}
		same(fmt.Sprintf("after %v", sig))
		l.Check(n1.StartAgent(lab.Offloadd))
		l.Sync()
		same(fmt.Sprintf("started after %v", sig))
		if n := count(l, n1, "flow modifications sent"); n != 0 {
			t.Errorf("started after %v, it sends %d flow modifications", sig, n)
		}
		if age, since := youngest(l, n1), time.Since(stopped); age < since {
			t.Errorf("started after %v: a flow is %v old, which is less than the %v since", sig, age, since)
		}
	}

	before := lineCount(l, n1, "msg=recomputed")
	l.Check(n1.SignalAgent(syscall.SIGUSR2))
	l.Eventually(5*time.Second, "a recompute", func() bool { return lineCount(l, n1, "msg=recomputed") == before+1 })
	l.Sync()
	same("after SIGUSR2")
	if n := count(l, n1, "flow modifications sent"); n != 0 {
		t.Errorf("after SIGUSR2, %d flow modifications", n)
	}
}

// A node leaves the deployment, and comes back; first without knowing its name.
func TestNodeLeaves(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{})
	control(l, n1, "node/leave")
	l.Check(n1.StopAgent(0)) // it ends by itself
	if end := n1.AgentEnd(lab.Offloadd); end != "exit status 0" {
		t.Errorf("ended with %s", end)
	}
	gone := func(when string) {
		t.Helper()
		for _, rows := range []string{"chassis name=n1", "chassis_private name=n1", "encap chassis_name=n1"} {
			table, condition, _ := strings.Cut(rows, " ")
			if got := get(l, table, "_uuid", condition); got != "" {
				t.Errorf("%s there is %s: %s", when, rows, got)
			}
		}
		if got := get(l, "port_binding", "chassis,up", "logical_port=p1"); got != "false" {
			t.Errorf("%s p1 has chassis and up %q, want no chassis and false", when, got)
		}
	}
	gone("after leaving")
	tunnels, err := n1.Tunnels(t.Context())
	l.Check(err)
	if len(tunnels) != 0 {
		t.Errorf("tunnels %+v are left", tunnels)
	}
	if flows := flowTexts(l, n1, "br-int"); len(flows) > 1 { // the first line is the message's name
		t.Errorf("%d flows are left: %q ...", len(flows)-1, flows[1])
	}
	l.Eventually(10*time.Second, "n2 without a tunnel to n1", func() bool {
		tunnels, err := l.Node("n2").Tunnels(t.Context())
		l.Check(err)
		return len(tunnels) == 0
	})

	_, err = n1.VSctl(t.Context(), "remove", "open", ".", "external_ids", "system-id")
	l.Check(err)
	begin := lineCount(l, n1, `msg="configuration incomplete"`, "system-id")
	l.Check(n1.StartAgent(lab.Offloadd))
	l.Eventually(5*time.Second, "a line about the name", func() bool {
		return lineCount(l, n1, `msg="configuration incomplete"`, "system-id") > begin
	})
	gone("without a name")
	_, err = n1.VSctl(t.Context(), "set", "open", ".", "external_ids:system-id=n1")
	l.Check(err)
	l.Eventually(10*time.Second, "p1 bound again", func() bool { return get(l, "port_binding", "up", "logical_port=p1") == "true" })
	l.Sync()
	wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)
}

// The agent follows external_ids:ovn-remote: to each server of a cluster, past one that is not there, and to another
// deployment and back.
func TestRemotes(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{SBServers: 3})
	server := func() (remote string) { // which the agent has connected to last
		log, err := os.ReadFile(n1.AgentLog())
		l.Check(err)
		for line := range strings.Lines(string(log)) {
			if strings.Contains(line, `msg="database connected" db=OVN_Southbound`) {
				_, remote, _ = strings.Cut(line, "remote=")
				remote, _, _ = strings.Cut(remote, " ")
			}
		}
		return remote
	}
	move := func(value, to string) {
		t.Helper()
		_, err := n1.VSctl(t.Context(), "set", "open", ".", "external_ids:ovn-remote="+strconv.Quote(value))
		l.Check(err)
		l.Eventually(10*time.Second, "a connection to "+to, func() bool { return strings.HasPrefix(server(), to) })
	}
	all := l.SBRemote()
	servers := strings.Split(all, ",")
	flows := flowTexts(l, n1, "br-int")
	for _, s := range servers {
		move("unix:/nonexistent,"+s, s)
	}
	l.Sync()
	if diff := cmp.Diff(flows, flowTexts(l, n1, "br-int")); diff != "" {
		t.Errorf("another server of the same cluster changes flows (-before +now):\n%s", diff)
	}

	empty := ovsdbtest.Start(t, ovsdbtest.Southbound)
	move(empty.Remote(), empty.Remote())
	l.Eventually(10*time.Second, "a chassis in the other deployment", func() bool { return len(empty.Select("Chassis", `[["name","==","n1"]]`)) == 1 })
	l.Eventually(10*time.Second, "no port of the first deployment", func() bool { return status(l, n1, "local ports") == "0" })
	move(all, "unix:"+l.Dir)
	l.Sync()
	if now := flowTexts(l, n1, "br-int"); len(now) != len(flows) { // the tunnel has another OpenFlow port
		t.Errorf("back in the first deployment there are %d flows, before %d", len(now), len(flows))
	}
	wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)

	// One that is no remote is told and not followed.
	_, err := n1.VSctl(t.Context(), "set", "open", ".", "external_ids:ovn-remote=nonsense")
	l.Check(err)
	l.Eventually(5*time.Second, "a line about it", func() bool { return lineCount(l, n1, "ovn-remote refused") == 1 })
	_, err = n1.VSctl(t.Context(), "set", "open", ".", "external_ids:ovn-remote="+strconv.Quote(all))
	l.Check(err)
	l.WaitInstalled(l.AddPod("n1", member(3)))
}

// An agent holds the rows that concern it, few of those of other switches; told to monitor all it holds all, and its
// flows are the same.
func TestConditionalMonitoring(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{})
	var script strings.Builder
	for s := range 20 {
		fmt.Fprintf(&script, "ls-add other%d\n", s)
		for p := range 5 {
			port := fmt.Sprintf("other%d-%d", s, p)
			fmt.Fprintf(&script, "lsp-add other%d %s\nlsp-set-addresses %s '50:54:00:01:%02x:%02x 10.1.%d.%d'\n", s, port, port, s, p, s, p+10)
			fmt.Fprintf(&script, "acl-add other%d to-lport 1000 'outport == \"%s\" && tcp.dst == %d' drop\n", s, port, 1000+p)
		}
	}
	l.NB(script.String())
	l.Sync()
	rows := func(table string) (held, all int) {
		t.Helper()
		return count(l, n1, "rows of "+table), len(strings.Fields(l.SB("--bare --columns=_uuid find " + table)))
	}
	flows := flowTexts(l, n1, "br-int")
	ports, allPorts := rows("Port_Binding")
	lflows, allLflows := rows("Logical_Flow")
	t.Logf("of %d port bindings %d are held, of %d logical flows %d", allPorts, ports, allLflows, lflows)
	if ports > 9 {
		t.Errorf("%d port bindings are held, of which 9 are of the local switch", ports)
	}
	// Flows that several switches share cannot be told apart by conditions.
	if own := allLflows - 20*5*4; lflows > own {
		t.Errorf("%d logical flows are held of %d, of which 400 at least are of other switches' ports", lflows, allLflows)
	}
	for _, on := range []bool{true, false} {
		_, err := n1.VSctl(t.Context(), "set", "open", ".", "external_ids:ovn-monitor-all="+strconv.FormatBool(on))
		l.Check(err)
		want := ports
		if on {
			want = allPorts
		}
		l.Eventually(10*time.Second, fmt.Sprintf("%d port bindings", want), func() bool {
			held, _ := rows("Port_Binding")
			return held == want
		})
		l.Sync()
		if diff := cmp.Diff(flows, flowTexts(l, n1, "br-int")); diff != "" {
			t.Errorf("ovn-monitor-all=%v changes flows (-before +now):\n%s", on, diff)
		}
	}
	if held, _ := rows("Logical_Flow"); held != lflows {
		t.Errorf("afterwards %d logical flows are held, before %d", held, lflows)
	}
}

// A port follows its interface and Port_Binding.requested_chassis.
func TestPortMoves(t *testing.T) {
	l := pair(t, lab.Options{})
	n1, n2 := l.Node("n1"), l.Node("n2")
	ctx := t.Context()
	uuids := map[string]string{get(l, "chassis", "_uuid", "name=n1"): "n1", get(l, "chassis", "_uuid", "name=n2"): "n2"}
	bound := func(port, where string, up bool) {
		t.Helper()
		var at, got string
		l.Eventually(10*time.Second, fmt.Sprintf("%s on %q, up %v", port, where, up), func() bool {
			at = uuids[get(l, "port_binding", "chassis", "logical_port="+port)]
			got = get(l, "port_binding", "up", "logical_port="+port)
			return at == where && got == strconv.FormatBool(up)
		})
	}
	installed := func(n *lab.Node, iface string) bool {
		t.Helper()
		out, err := n.VSctl(ctx, "--if-exists", "get", "interface", iface, "external_ids:ovn-installed")
		return err == nil && strings.TrimSpace(out) == `"true"`
	}

	// p3 has an interface on both nodes; one of them is asked for.
	here := l.AddPod("n1", member(3))
	bound("p3", "n1", true)
	l.NB("set logical_switch_port p3 options:requested-chassis=n2")
	bound("p3", "", false)
	if l.Eventually(5*time.Second, "no mark", func() bool { return !installed(n1, here.Iface()) }); t.Failed() {
		return
	}
	_, err := n2.VSctl(ctx, "add-port", "br-int", "there", "--", "set", "interface", "there", "type=internal", "external_ids:iface-id=p3")
	l.Check(err)
	bound("p3", "n2", true)
	l.NB("set logical_switch_port p3 options:requested-chassis=n1")
	bound("p3", "n1", true)
	l.Sync()
	wantPing(t, l.Pod("p2"), here, 5*time.Second)
	_, err = n2.VSctl(ctx, "del-port", "there")
	l.Check(err)
	l.NB("remove logical_switch_port p3 options requested-chassis")
	l.Sync()
	bound("p3", "n1", true)

	// An interface of another generation is not the one that is meant.
	l.NB("set logical_switch_port p4 options:iface-id-ver=two")
	p4 := l.AddPod("n1", member(4))
	l.Sync()
	bound("p4", "", false)
	for _, tt := range []struct {
		ver   string
		where string
	}{{"one", ""}, {"two", "n1"}, {"three", ""}} {
		_, err := n1.VSctl(ctx, "set", "interface", p4.Iface(), "external_ids:iface-id-ver="+tt.ver)
		l.Check(err)
		bound("p4", tt.where, tt.where != "")
	}
	_, err = n1.VSctl(ctx, "set", "interface", p4.Iface(), "external_ids:iface-id-ver=two")
	l.Check(err)
	bound("p4", "n1", true)

	// Another OpenFlow port for the same interface.
	_, err = n1.VSctl(ctx, "set", "interface", p4.Iface(), "ofport_request=77")
	l.Check(err)
	l.Eventually(10*time.Second, "p4 reached through port 77", func() bool {
		for _, f := range flowTexts(l, n1, "br-int") {
			if strings.Contains(f, "table=65,") && strings.HasSuffix(strings.TrimSpace(f), "actions=output:77") {
				return true
			}
		}
		return false
	})
	wantPing(t, l.Pod("p2"), p4, 5*time.Second)

	// An interface that goes takes its port with it, and one that only forgets its port is not marked any more.
	l.Check(p4.Unplug(ctx))
	bound("p4", "", false)
	_, err = n1.VSctl(ctx, "remove", "interface", here.Iface(), "external_ids", "iface-id")
	l.Check(err)
	bound("p3", "", false)
	l.Eventually(5*time.Second, "no mark", func() bool { return !installed(n1, here.Iface()) })
	_, err = n1.VSctl(ctx, "set", "interface", here.Iface(), "external_ids:iface-id=p3")
	l.Check(err)
	bound("p3", "n1", true)
	l.Eventually(5*time.Second, "a mark", func() bool { return installed(n1, here.Iface()) })
}

// The node's configuration changes while it works: the tunnel's address, and the bridge itself.
func TestNodeChanges(t *testing.T) {
	second := netip.MustParseAddr("172.31.0.101")
	l := pair(t, lab.Options{Nodes: []lab.NodeConfig{
		{Name: "n1", Agent: agent(t), EncapIPs: []netip.Addr{netip.MustParseAddr("172.31.0.1"), second}, ExternalIDs: map[string]string{
			"ovn-bridge-datapath-type": "netdev",
			"ovn-set-local-ip":         "true", // otherwise packets come from whatever address the route has
		}},
		{Name: "n2", Agent: lab.OVNController},
	}})
	n1, ctx := l.Node("n1"), t.Context()
	for _, ip := range []string{second.String(), "172.31.0.1"} {
		_, err := n1.VSctl(ctx, "set", "open", ".", "external_ids:ovn-encap-ip="+ip)
		l.Check(err)
		l.Eventually(10*time.Second, "one encap at "+ip, func() bool { return get(l, "encap", "ip", "chassis_name=n1") == ip })
		l.Eventually(10*time.Second, "n2's tunnel to "+ip, func() bool {
			tunnels, err := l.Node("n2").Tunnels(ctx)
			return err == nil && len(tunnels) == 1 && tunnels[0].Remote == ip // an error: ovn-controller has just replaced one
		})
		l.Sync()
		wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)
	}

	// The bridge goes; the agent makes a new one.
	_, err := n1.VSctl(ctx, "--no-wait", "del-br", "br-int")
	l.Check(err)
	l.Eventually(10*time.Second, "a new bridge", func() bool {
		_, err := n1.VSctl(ctx, "br-exists", "br-int")
		return err == nil
	})
	again := func(what string) {
		t.Helper()
		l.Check(l.Pod("p1").Plug(ctx))
		l.WaitInstalled(l.Pod("p1"))
		l.Sync()
		wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)
		if flows, err := n1.Flows(ctx, "br-int"); err != nil || flows < 100 {
			t.Errorf("%s: %d flows, %v", what, flows, err)
		}
	}
	again("the agent's bridge")

	// Somebody replaces it in one go.
	_, err = n1.VSctl(ctx, "del-br", "br-int", "--", "add-br", "br-int", "--", "set", "bridge", "br-int", "datapath_type=netdev", "fail_mode=secure")
	l.Check(err)
	again("somebody's bridge")
}

// Two agents on one machine, each with a name, a bridge and an address of its own, leave each other alone.
func TestTwoAgents(t *testing.T) {
	l, n1 := offloadd(t, lab.Options{})
	ctx := t.Context()
	_, err := n1.VSctl(ctx,
		"add-br", "br-two", "--", "set", "bridge", "br-two", "datapath_type=netdev", "fail_mode=secure",
		"--", "add-port", "br-two", "p3", "--", "set", "interface", "p3", "type=internal", "external_ids:iface-id=p3",
		"--", "set", "open", ".", "external_ids:ovn-bridge-two=br-two", "external_ids:ovn-encap-ip-two=172.31.0.102",
		"external_ids:ovn-encap-type-two=geneve", "external_ids:ovn-remote-two="+strconv.Quote(l.SBRemote()))
	l.Check(err)
	l.Sync()
	record, flows := chassisRecord(l), flowTexts(l, n1, "br-int")

	// Unix sockets alone are needed, so it may run outside of the node's namespace.
	dir := filepath.Join(n1.Dir, "two")
	l.Check(os.Mkdir(dir, 0o755))
	log, err := os.Create(filepath.Join(dir, "log"))
	l.Check(err)
	defer log.Close()
	two := exec.CommandContext(ctx, labtest.Offloadd(t), "-n", "two", "--run-dir="+dir, "--state-dir="+dir, n1.OVSRemote())
	two.Stdout, two.Stderr = log, log
	l.Check(two.Start())
	ended := make(chan error, 1)
	go func() { ended <- two.Wait() }() // ends with the process, at the latest with the context
	t.Cleanup(func() {
		_ = two.Process.Kill()
		if t.Failed() {
			text, _ := os.ReadFile(log.Name())
			t.Logf("log of the second agent:\n%s", text)
		}
	})
	l.Eventually(10*time.Second, "p3 bound by the second agent", func() bool {
		return get(l, "port_binding", "up", "logical_port=p3") == "true" &&
			get(l, "port_binding", "chassis", "logical_port=p3") == get(l, "chassis", "_uuid", "name=two")
	})
	l.Eventually(10*time.Second, "tunnels to both on n2", func() bool {
		tunnels, err := l.Node("n2").Tunnels(ctx)
		l.Check(err)
		return len(tunnels) == 2
	})
	if flows := flowTexts(l, n1, "br-two"); len(flows) < 100 {
		t.Errorf("%d flows in the second bridge", len(flows))
	}
	out, err := n1.Exec(ctx, "ovs-appctl", "--timeout=20", "-t", filepath.Join(dir, "offloadd.ctl"), "node/leave")
	l.Check(err)
	if err := <-ended; err != nil || out != "" {
		t.Errorf("the second agent leaves with %q and ends with %v", out, err)
	}
	if got := get(l, "chassis", "_uuid", "name=two"); got != "" {
		t.Errorf("the second chassis is still there: %s", got)
	}
	l.Eventually(10*time.Second, "the first chassis as before", func() bool { return chassisRecord(l) == record })
	l.Eventually(10*time.Second, "the first bridge as before", func() bool { return cmp.Equal(flows, flowTexts(l, n1, "br-int")) })
	wantPing(t, l.Pod("p2"), l.Pod("p1"), 5*time.Second)
}
