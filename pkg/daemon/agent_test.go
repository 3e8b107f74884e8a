package daemon

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ovn-org/libovsdb/ovsdb"
	"go.uber.org/goleak"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/openflow/openflowtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
)

// A node is an Open vSwitch with the port p1 of the logical switch sw0, a Southbound database in which a test is
// ovn-northd, and an agent in this process.
type node struct {
	t     *testing.T
	sw    *openflowtest.Switch
	sb    *ovsdbtest.Server
	relay *openflowtest.Relay

	agent *Agent
	stop  func() error // ends the agent, and returns what Run does
}

func newNode(t *testing.T) *node {
	t.Helper()
	return newNodeWith(t, ovsdbtest.Southbound)
}

// newNodeWith returns a node whose Southbound has the schema in the given file.
func newNodeWith(t *testing.T, schema string) *node {
	t.Helper()
	t.Cleanup(func() { goleak.VerifyNone(t) })
	n := &node{t: t, sw: openflowtest.Start(t), sb: ovsdbtest.Start(t, schema)}
	n.sb.Transact(Operations([]chassis.Op{
		{Kind: chassis.Insert, Table: "SB_Global", Name: "global", Set: map[string]any{"nb_cfg": int64(0)}},
		{Kind: chassis.Insert, Table: "Datapath_Binding", Name: "sw0", Set: map[string]any{
			"tunnel_key": int64(1), "external_ids": map[string]string{"name": "sw0", "logical-switch": row1},
		}},
		{Kind: chassis.Insert, Table: "Port_Binding", Set: map[string]any{
			"logical_port": "p1", "datapath": chassis.Ref{Name: "sw0"}, "tunnel_key": int64(1), "up": false, "mac": []string{"50:54:00:00:00:01"},
		}},
		{Kind: chassis.Insert, Table: "Logical_Flow", Set: map[string]any{
			"logical_datapath": chassis.Ref{Name: "sw0"}, "pipeline": "ingress", "table_id": int64(0), "priority": int64(50),
			"match": "inport == \"p1\"", "actions": "next;",
		}},
	})...)
	if err := n.sw.AddBridge("br-int"); err != nil {
		t.Fatal(err)
	}
	n.relay = openflowtest.StartRelay(t, n.sw, "br-int")
	n.sw.VSctl(t, "add-port", "br-int", "p1", "--", "set", "interface", "p1", "type=dummy", "external_ids:iface-id=p1",
		"--", "set", "open_vswitch", ".", "external_ids:ovn-bridge-datapath-type=dummy", "external_ids:ovn-remote="+n.sb.Remote(),
		"external_ids:ovn-encap-type=geneve", "external_ids:ovn-encap-ip=127.0.0.1")
	return n
}

// start starts an agent of its own. It ends with stop, or with the test.
func (n *node) start() {
	n.t.Helper()
	agent, err := NewAgent(Config{OVSDatabase: n.sw.Database(), OVSRunDir: n.relay.Dir}, chassis.Options{Hostname: "h", BridgeMAC: "02:00:00:00:00:01"}, silent())
	if err != nil {
		n.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Run(ctx, silent(), agent.Tasks()...) }()
	n.agent, n.stop = agent, sync.OnceValue(func() error {
		cancel()
		return <-done
	})
	n.t.Cleanup(func() { _ = n.stop() })
}

// until waits for a summary that satisfies cond.
func (n *node) until(what string, cond func(Summary) bool) Summary {
	n.t.Helper()
	for end := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		var s Summary
		if err := n.agent.do(func() { s = n.agent.summary() }); err != nil {
			n.t.Fatal(err)
		}
		if cond(s) {
			return s
		}
		if time.Now().After(end) {
			n.t.Fatalf("no %s:\n%s", what, s)
		}
	}
}

// works waits until p1 is marked as installed, and there is nothing more to do.
func (n *node) works() Summary {
	n.t.Helper()
	n.sw.VSctl(n.t, "--timeout=20", "wait-until", "interface", "p1", "external_ids:ovn-installed=true")
	return n.until("acknowledged turn", func(s Summary) bool { return s.Bridge.Installed && s.Acked >= n.lastSent() && s.Ports == 1 })
}

func (n *node) lastSent() (turn uint64) {
	_ = n.agent.do(func() { turn = n.agent.sent })
	return turn
}

// zones returns the zones that the bridge's row remembers.
func (n *node) zones() []string {
	n.t.Helper()
	var zones []string
	for pair := range strings.SplitSeq(strings.Trim(n.sw.VSctl(n.t, "get", "bridge", "br-int", "external_ids"), "{}\n"), ", ") {
		if key, value, _ := strings.Cut(pair, "="); strings.HasPrefix(strings.Trim(key, `"`), "ct-zone-") {
			zones = append(zones, strings.Trim(value, `"`))
		}
	}
	slices.Sort(zones)
	return zones
}

// Connections that are in a zone before the first start are gone before its flows are there; a restart with nothing
// changed touches neither zones nor flows.
func TestZonesOfAFirstStart(t *testing.T) {
	n := newNode(t)
	n.sw.VSctl(t, "set", "open_vswitch", ".", "external_ids:system-id=n1")
	n.start()
	n.works()
	var zones []string
	n.until("zones recorded", func(Summary) bool {
		zones = n.zones()
		return len(zones) == 3
	})
	var flushed []string
	seen := n.relay.Seen()
	for i, what := range seen {
		zone, flush := strings.CutPrefix(what, "flush ")
		switch {
		case !flush:
		case slices.Contains(seen[:i], "bundle add"):
			t.Errorf("zone %s flushed after flows: %q", zone, seen)
		default:
			flushed = append(flushed, zone)
		}
	}
	slices.Sort(flushed)
	if !slices.Equal(flushed, zones) {
		t.Errorf("flushed zones %v, want %v: those of the port and of its switch", flushed, zones)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}

	n.start()
	s := n.works()
	if seen := n.relay.Seen(); len(seen) != 0 || s.Bridge.Sent != 0 {
		t.Errorf("a restart sends %d flow modifications, and the bridge %q", s.Bridge.Sent, seen)
	}
	if err := n.agent.Recompute(); err != nil {
		t.Fatal(err)
	}
	if s := n.works(); s.Bridge.Sent != 0 {
		t.Errorf("a recompute sends %d flow modifications", s.Bridge.Sent)
	}
	if err := n.stop(); err != nil {
		t.Fatal(err)
	}
}

// A chassis leaves: nothing of it is in the databases, and its bridge is empty. Run tells so.
func TestLeave(t *testing.T) {
	n := newNode(t)
	n.sw.VSctl(t, "set", "open_vswitch", ".", "external_ids:system-id=n1")
	n.start()
	n.works()
	if err := n.agent.Leave(); err != nil {
		t.Fatal(err)
	}
	if err := n.stop(); !errors.Is(err, ErrLeft) {
		t.Errorf("Run = %v, want %v", err, ErrLeft)
	}
	for _, table := range []string{"Chassis", "Chassis_Private", "Encap"} {
		if rows := n.sb.Select(table, "[]"); len(rows) != 0 {
			t.Errorf("%s has %v", table, rows)
		}
	}
	port := n.sb.Select("Port_Binding", "[]")[0]
	if port["chassis"].([]any)[0] != "set" || port["up"] != false {
		t.Errorf("p1 has chassis %v, up %v", port["chassis"], port["up"])
	}
	if flows := strings.TrimSpace(n.sw.OFctl(t, "dump-aggregate", "br-int")); !strings.Contains(flows, "flow_count=0") {
		t.Errorf("the bridge has %s", flows)
	}
	if err := n.agent.Leave(); !errors.Is(err, errEnded) {
		t.Errorf("Leave again = %v, want %v", err, errEnded)
	}
}

// A chassis without a name has nothing to leave; and one with a name is not gone before its bridge is empty.
func TestLeaveEarly(t *testing.T) {
	n := newNode(t)
	n.start()
	n.until("connection", func(s Summary) bool { return s.OVS })
	if err := n.agent.Leave(); err != nil {
		t.Errorf("Leave without a name = %v", err)
	}
	_ = n.stop()

	n.sw.VSctl(t, "set", "open_vswitch", ".", "external_ids:system-id=n1")
	n.start()
	n.works()
	n.sw.Kill()
	n.until("bridge lost", func(s Summary) bool { return !s.Bridge.Connected })
	left := make(chan error)
	go func() { left <- n.agent.Leave() }()
	select {
	case err := <-left:
		t.Fatalf("Leave = %v while nobody can empty the bridge", err)
	case <-time.After(200 * time.Millisecond):
	}
	if err := n.sw.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := <-left; err != nil {
		t.Errorf("Leave = %v", err)
	}
}

// Rows of the Southbound that change before there is anything to compile are not kept twice.
func TestChangesBeforeTheFirstProgram(t *testing.T) {
	n := newNode(t)
	n.sw.VSctl(t, "set", "open_vswitch", ".", "external_ids:system-id=n1", "external_ids:ovn-monitor-all=true")
	n.sw.Kill() // so there is no Geneve field yet
	n.start()
	n.until("Southbound", func(s Summary) bool { return s.Southbound && s.Rows["Port_Binding"] == 1 })
	for i := range 20 {
		n.sb.Transact(ovsdb.Operation{Op: "insert", Table: "Address_Set", Row: ovsdb.Row{"name": "as" + strconv.Itoa(i)}})
	}
	n.until("address sets", func(s Summary) bool { return s.Rows["Address_Set"] == 20 })
	var kept int
	if err := n.agent.do(func() { kept = len(n.agent.delta.Changes) }); err != nil {
		t.Fatal(err)
	}
	if kept != 0 {
		t.Errorf("%d changes are kept", kept)
	}
	if err := n.sw.Resume(); err != nil {
		t.Fatal(err)
	}
	n.works()
}
