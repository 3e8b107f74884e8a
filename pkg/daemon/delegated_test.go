package daemon

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
	"github.com/offloadd/offloadd/pkg/tc/tctest"
)

// captured is what Open vSwitch 3.1 had of the packets of db1 and of tunnels, with hw-offload=true and tc-policy=skip_hw.
func captured(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("testdata/megaflows.txt")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// capturedFilters is a kernel with the filters that belong to it, on the device v-db1.
func capturedFilters(t *testing.T) *tctest.Kernel {
	t.Helper()
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		t.Skip("the bytes of integers are in the order of a little-endian machine")
	}
	text, err := os.ReadFile("testdata/filters.txt")
	if err != nil {
		t.Fatal(err)
	}
	k := tctest.NewKernel(t)
	k.Qdisc(deviceDB1, "ingress", 0)
	for line := range strings.Lines(string(text)) {
		b, err := hex.DecodeString(strings.TrimSpace(line))
		if err != nil {
			t.Fatal(err)
		}
		k.Filter(b)
	}
	return k
}

const deviceDB1 = 14

// vswitchd answers each question at its control socket with text, in a directory of its own.
func vswitchd(t *testing.T, text string) (dir string) {
	t.Helper()
	dir = socketDir(t)
	if err := os.WriteFile(filepath.Join(dir, "ovs-vswitchd.pid"), []byte("7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(dir, "ovs-vswitchd.7.ctl"))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			var req controlRequest
			if err := json.NewDecoder(conn).Decode(&req); err != nil || req.Method != "dpctl/dump-flows" {
				t.Errorf("question %+v, %v", req, err)
			}
			_ = json.NewEncoder(conn).Encode(controlReply{ID: req.ID, Result: text})
			_ = conn.Close()
		}
	}()
	t.Cleanup(func() { _ = l.Close(); <-done })
	return dir
}

// delegatedFlows returns Flows of an agent that leaves offload to Open vSwitch, with db1 and db3 as local ports, and a tunnel.
func delegatedFlows(t *testing.T, dir string, k *tctest.Kernel) *Flows {
	t.Helper()
	f := filtersOf(t, nil, k)
	a := f.agent
	a.offload = nil
	a.config.Offload, a.config.OVSRunDir = offloadDelegated, dir
	a.asking = make(chan struct{}, 1)
	a.sw = chassis.NewSwitch()
	a.ovs, a.south = newDatabase("Open_vSwitch", nil), newDatabase("OVN_Southbound", nil)
	a.ovs.synced = true
	a.plan.Local.Ports = map[string]chassis.LocalPort{"db1": {Iface: "v-db1"}, "db3": {Iface: "v-db3"}}
	a.plan.Local.Tunnels = []chassis.Tunnel{{Chassis: "n2"}}
	a.dialTC = func() (*tc.Conn, error) { return tc.NewConn(k.Dial()), nil }
	a.ifindex = func(device string) int {
		if device == "v-db1" {
			return deviceDB1
		}
		return 0
	}
	return f
}

// config makes the database say other_config.
func configure(a *Agent, other map[string]string) {
	a.sw.Apply([]chassis.Change{{Table: vswitchdb.OpenvSwitchTable, UUID: "r", New: &vswitchdb.OpenvSwitch{UUID: "r", OtherConfig: other}}})
}

// That Open vSwitch does not offload is a fault, with what to do; what it says is read as Open vSwitch reads it.
func TestDelegatedState(t *testing.T) {
	a := &Agent{config: Config{Offload: offloadDelegated}, sw: chassis.NewSwitch(), ovs: newDatabase("Open_vSwitch", nil)}
	if o := a.offloadState(); o.Mode != api.OffloadDelegated || !strings.Contains(o.Idle, "not been read") || filterHealth(o).Reason != "" {
		t.Errorf("before the database is read: %+v", o)
	}
	a.ovs.synced = true
	for _, c := range []struct {
		other map[string]string
		on    bool
		line  string
	}{
		{nil, false, "offload: none: Open vSwitch does not offload: other_config:hw-offload is not true"},
		{map[string]string{"hw-offload": "false"}, false, "offload: none: Open vSwitch does not offload: other_config:hw-offload is not true"},
		{map[string]string{"hw-offload": "true"}, true, "offload: delegated to Open vSwitch, tc-policy none"},
		{map[string]string{"hw-offload": "True", "tc-policy": "skip_hw"}, true, "offload: delegated to Open vSwitch, tc-policy skip_hw"},
	} {
		configure(a, c.other)
		o := a.offloadState()
		h := filterHealth(o)
		if o.Delegated.HWOffload != c.on || (o.Idle == "") != c.on || (h.Reason == "") != c.on {
			t.Errorf("%v: %+v, health %+v", c.other, o, h)
		}
		if !c.on && (h.Reason != reason.HWOffloadOff || !strings.Contains(h.Message, "ovs-vsctl set open . other_config:hw-offload=true")) {
			t.Errorf("%v: health %+v does not say what to do", c.other, h)
		}
		if got := delegatedLines(o); got[0] != c.line {
			t.Errorf("%v: %q, want %q", c.other, got[0], c.line)
		}
	}
	// Nobody else minds.
	a.config.Offload = offloadOff
	configure(a, nil)
	if o := a.offloadState(); o.Mode != api.OffloadOff || o.Delegated != nil || filterHealth(o).Reason != "" {
		t.Errorf("off: %+v", o)
	}
}

// The megaflows of each local port and of the tunnels are summed by where they are, if somebody asks.
func TestStatusOfMegaflows(t *testing.T) {
	f := delegatedFlows(t, vswitchd(t, captured(t)), capturedFilters(t))
	a := f.agent
	configure(a, map[string]string{"hw-offload": "true"})
	d := &api.Delegated{}
	if err := (&Node{agent: a}).sumMegaflows(t.Context(), d); err != nil {
		t.Fatal(err)
	}
	all, err := dpctl.Parse(captured(t))
	if err != nil {
		t.Fatal(err)
	}
	var want [2]api.MegaflowSum // in TC, and in Open vSwitch
	for _, m := range all {
		s := &want[0]
		if m.Layer == dpctl.OVS {
			s = &want[1]
		}
		s.Flows, s.Packets, s.Bytes = s.Flows+1, s.Packets+m.Packets, s.Bytes+m.Bytes
	}
	if want[0].Packets == 0 || want[1].Packets == 0 {
		t.Fatalf("nothing was captured: %+v", want)
	}
	if len(d.Ports) != 3 || d.Ports[0] != (api.DelegatedPort{Port: "db1", Device: "v-db1", TC: want[0]}) ||
		d.Ports[1] != (api.DelegatedPort{Port: "db3", Device: "v-db3"}) || d.Ports[2] != (api.DelegatedPort{Device: tunnelDevice, OVS: want[1]}) {
		t.Errorf("ports %+v, want db1 with %+v, db3, and tunnels with %+v", d.Ports, want[0], want[1])
	}

	// That ovs-vswitchd is away is said, and the rest of the status is told.
	a.config.OVSRunDir = "/nonexistent"
	d = &api.Delegated{}
	if err := (&Node{agent: a}).sumMegaflows(t.Context(), d); err != nil || len(d.Ports) > 0 || !strings.Contains(d.Error, "ovs-vswitchd does not run") {
		t.Errorf("without ovs-vswitchd: %v, %+v", err, d)
	}
	var r *reason.Error
	if _, err := f.Explain(t.Context(), api.ExplainRequest{Port: "db1"}); !errors.As(err, &r) || r.Reason != reason.BridgeDisconnected {
		t.Errorf("explain without ovs-vswitchd: %v", err)
	}
}

// Filters are Open vSwitch's, each with the UFID of a megaflow that counts the same; others are told apart.
func TestDelegatedFilters(t *testing.T) {
	k := capturedFilters(t)
	f := delegatedFlows(t, vswitchd(t, captured(t)), k)
	list := func(filter api.FilterFilter) (all []api.Filter) {
		t.Helper()
		if err := f.Filters(t.Context(), filter, func(g api.Filter) error { all = append(all, g); return nil }); err != nil {
			t.Fatal(err)
		}
		return all
	}
	megaflows, err := dpctl.Parse(captured(t))
	if err != nil {
		t.Fatal(err)
	}
	byUFID := map[string]dpctl.Flow{}
	for _, m := range megaflows {
		if m.Layer == dpctl.TC {
			byUFID[m.UFID] = m
		}
	}
	all := list(api.FilterFilter{})
	if len(all) != len(byUFID) || len(all) == 0 {
		t.Errorf("%d filters for %d megaflows", len(all), len(byUFID))
	}
	for _, g := range all {
		m, ok := byUFID[g.UFID]
		if !ok || g.State != api.FilterDelegated || g.Device != "v-db1" || g.InHW || g.Kind != "" || !strings.Contains(g.Text, " skip_hw ") {
			t.Errorf("filter %+v", g)
		}
		if g.Chain != m.Recirc || g.Counters.Packets != m.Packets {
			t.Errorf("filter of %s is in chain %d with %d packets, its megaflow has recirc_id %d and %d packets", g.UFID, g.Chain, g.Counters.Packets, m.Recirc, m.Packets)
		}
	}
	if !slices.IsSortedFunc(all, func(a, b api.Filter) int { return int(a.Chain) - int(b.Chain) }) {
		t.Error("chains are not in order")
	}
	chain := uint32(1)
	if some := list(api.FilterFilter{Port: "db1", Chain: &chain}); len(some) == 0 || len(some) == len(all) || some[0].Chain != chain {
		t.Errorf("chain 1 of db1 has %d filters", len(some))
	}
	if none := list(api.FilterFilter{Port: "db3"}); len(none) > 0 {
		t.Errorf("db3, whose device is gone, has %d filters", len(none))
	}
	if none := list(api.FilterFilter{States: []api.FilterState{api.FilterForeign}}); len(none) > 0 {
		t.Errorf("%d filters are foreign", len(none))
	}

	// A UFID may look like a cookie of ours.
	alike := tc.Filter{Pref: 1, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}, Cookie: tc.Cookie{0x0f, 0x1d, 1, 2}}
	payload, err := tc.AppendFilter(nil, tc.Target{Ifindex: deviceDB1}, &alike)
	if err != nil {
		t.Fatal(err)
	}
	k.Filter(payload)
	if first := list(api.FilterFilter{Port: "db1"})[0]; first.State != api.FilterDelegated || first.UFID != "02011d0f"+strings.Repeat("0", 24) {
		t.Errorf("a filter with a cookie like ours is %+v", first)
	}

	// In a block: ours, which should not be there, and somebody else's.
	ours := specialize.Closed(0, "v-db1")
	ours.Handle = 1
	foreign := tc.Filter{Chain: 1, Pref: 9, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}}
	f.agent.dialTC = func() (*tc.Conn, error) {
		return tc.NewConn(kernelWith(t, []int{deviceDB1}, []tc.Filter{ours, foreign}).Dial()), nil
	}
	all = list(api.FilterFilter{Port: "db1"})
	if len(all) != 2 || all[0].State != api.FilterSurplus || all[0].Kind != api.FilterClosed || all[1].State != api.FilterForeign || all[1].UFID != "" {
		t.Errorf("in the block %d: %+v", apply.Block, all)
	}
}

// What is about chains of ours says that there are none.
func TestNoChains(t *testing.T) {
	f := delegatedFlows(t, "/nonexistent", tctest.NewKernel(t))
	for name, err := range map[string]error{
		"chains": f.Chains(t.Context(), "db1", func(api.ChainItem) error { return nil }),
		"diff":   f.FilterDiff(t.Context(), func(api.FilterDifference) error { return nil }),
	} {
		var r *reason.Error
		if !errors.As(err, &r) || r.Reason != reason.FeatureUnsupported || !strings.Contains(err.Error(), "offload=delegated") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The megaflows of a port are told with where they are, those with most packets first.
func TestExplainDelegated(t *testing.T) {
	f := delegatedFlows(t, vswitchd(t, captured(t)), capturedFilters(t))
	e, err := f.Explain(t.Context(), api.ExplainRequest{Port: "db1"})
	if err != nil {
		t.Fatal(err)
	}
	if !e.Delegated || e.Device != "v-db1" || !strings.Contains(e.Idle, "hw-offload is not true") || len(e.Megaflows) < 10 || e.MegaflowsLeft != 0 {
		t.Errorf("explained with %d megaflows: %+v", len(e.Megaflows), e)
	}
	last := ^uint64(0)
	for _, m := range e.Megaflows {
		if m.Layer != api.LayerTC || m.Device != "v-db1" || m.Counters.Packets > last {
			t.Errorf("megaflow %+v", m)
		}
		last = m.Counters.Packets
	}
	e, err = f.Explain(t.Context(), api.ExplainRequest{Port: tunnelDevice})
	if err != nil || len(e.Megaflows) == 0 || slices.ContainsFunc(e.Megaflows, func(m api.Megaflow) bool { return m.Layer != api.LayerOVS }) {
		t.Errorf("tunnels: %+v, %v", e, err)
	}

	// What is more than an answer holds is counted.
	many := strings.Repeat("recirc_id(0),in_port(v-db1), packets:1, bytes:60, used:never, dp:ovs, actions:drop\n", maxMegaflows+3)
	f.agent.config.OVSRunDir = vswitchd(t, many)
	if e, err = f.Explain(t.Context(), api.ExplainRequest{Port: "db1"}); err != nil || len(e.Megaflows) != maxMegaflows || e.MegaflowsLeft != 3 {
		t.Errorf("%d megaflows, %d more, %v", len(e.Megaflows), e.MegaflowsLeft, err)
	}
}

// A packet is followed from one megaflow to the next, with what the connection tracker finds and what they change.
func TestFollow(t *testing.T) {
	delivered := []api.TraceStep{{Kind: api.TraceOutput, LogicalPort: "db3", Via: "local"}}
	packet := func(set map[ir.Field]uint64) eval.Packet {
		var p eval.Packet
		for field, v := range set {
			p.Set(field, ir.U64(v))
		}
		return p
	}
	tcp := map[ir.Field]uint64{
		ir.EthSrc: 0x505400000201, ir.EthDst: 0x505400000203, ir.EthType: 0x800, ir.IPSrc: 0x0a02000b, ir.IPDst: 0x0a02000d,
		ir.IPProto: 6, ir.IPTTL: 64, ir.TCPSrc: 40000, ir.TCPDst: 5432,
	}
	const (
		routed = `recirc_id(0),in_port(v-db1),eth_type(0x0800), packets:1, bytes:60, used:never, offloaded:yes, dp:tc, actions:ct_clear,set(eth(dst=50:54:00:00:09:09)),set(ipv4(ttl=63)),recirc(0x5)
recirc_id(0x5),in_port(v-db1),eth(dst=50:54:00:00:09:09),eth_type(0x0800),ipv4(ttl=64), packets:1, bytes:60, used:never, dp:tc, actions:wrong
`
		sent     = `recirc_id(0x5),in_port(v-db1),eth(dst=50:54:00:00:09:09),eth_type(0x0800),ipv4(ttl=63), packets:1, bytes:60, used:never, offloaded:yes, dp:tc, actions:v-db3`
		inTC     = `recirc_id(0x5),in_port(v-db1),eth(dst=50:54:00:00:09:09),eth_type(0x0800),ipv4(ttl=63), packets:1, bytes:60, used:never, dp:tc, actions:v-db3`
		inOVS    = `recirc_id(0x5),in_port(v-db1),eth(dst=50:54:00:00:09:09),eth_type(0x0800),ipv4(ttl=63), packets:1, bytes:60, used:never, dp:ovs, actions:v-db3`
		tagged   = `recirc_id(0),in_port(v-db1),vlan(vid=5,pcp=0), packets:1, bytes:60, used:never, dp:ovs, actions:drop`
		changing = `recirc_id(0),in_port(v-db1), packets:1, bytes:60, used:never, dp:tc, actions:push_vlan(vid=5,pcp=0),recirc(0x5)`
		forgets  = `recirc_id(0),in_port(v-db1),ct_state(-trk), packets:1, bytes:60, used:never, dp:tc, actions:ct(zone=1),recirc(0x1)
recirc_id(0x1),in_port(v-db1),ct_state(+trk+est),ct_zone(0x1), packets:1, bytes:60, used:never, dp:tc, actions:ct_clear,recirc(0x2)
recirc_id(0x2),in_port(v-db1),ct_state(+trk), packets:1, bytes:60, used:never, dp:tc, actions:wrong
recirc_id(0x2),in_port(v-db1),ct_state(-trk),ct_zone(0), packets:1, bytes:60, used:never, dp:tc, actions:v-db3`
		circle = `recirc_id(0),in_port(v-db1), packets:1, bytes:60, used:never, dp:tc, actions:recirc(0x1)
recirc_id(0x1),in_port(v-db1), packets:1, bytes:60, used:never, dp:tc, actions:recirc(0x1)`
	)
	for _, c := range []struct {
		name    string
		dump    string
		ct      []string
		path    int
		last    string // action of the last megaflow
		missing string
		layers  []string
	}{
		{"captured", captured(t), nil, 3, "v-db3", "", []string{
			"nic passes the megaflow that the packet meets is not in hardware", "tc decides delivered to db3 (local)", "ovs not reached",
		}},
		{"captured, a new connection", captured(t), []string{"trk,new", "trk,new"}, 3, "ct(commit,zone=10,mark=0/0x1,nat(src)),v-db3", "", nil},
		{"captured, an answer", captured(t), []string{"trk,est,rpl"}, 1, "ct(zone=9),recirc(0x1)", "no megaflow matches", []string{
			"nic passes the megaflow that the packet meets is not in hardware", "tc passes it has the first 1 megaflows, and not the next",
			"ovs decides delivered to db3 (local); no megaflow matches: ovs-vswitchd decides, and makes one",
		}},
		{"none", "", nil, 0, "", "no megaflow matches", []string{
			"nic passes no megaflow matches: ovs-vswitchd decides, and makes one", "tc passes no megaflow matches: ovs-vswitchd decides, and makes one",
			"ovs decides delivered to db3 (local); no megaflow matches: ovs-vswitchd decides, and makes one",
		}},
		{"in hardware", routed + sent, nil, 2, "v-db3", "", []string{"nic decides delivered to db3 (local)", "tc not reached", "ovs not reached"}},
		{"begins in hardware", routed + inTC, nil, 2, "v-db3", "", []string{"nic passes it has the first 1 of 2 megaflows", "tc decides delivered to db3 (local)", "ovs not reached"}},
		{"ends in Open vSwitch", routed + inOVS, nil, 2, "v-db3", "", []string{
			"nic passes it has the first 1 of 2 megaflows", "tc passes the megaflow that the packet meets is not in TC", "ovs decides delivered to db3 (local)",
		}},
		{"another TTL", routed, nil, 1, "recirc(0x5)", "no megaflow matches", nil},
		{"not understood", tagged, nil, 0, "", "1 ask for what is not understood", nil},
		{"changed", changing, nil, 1, "recirc(0x5)", "not understood: push_vlan", nil},
		{"forgotten", forgets, nil, 3, "v-db3", "", nil},
		{"a circle", circle, nil, maxRecirculations, "recirc(0x1)", "more often than is followed", nil},
	} {
		flows, err := dpctl.Parse(c.dump)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		flows = slices.DeleteFunc(flows, func(m dpctl.Flow) bool { return m.InPort != "v-db1" })
		m := follow(flows, packet(tcp), &scriptedTracker{ct: c.ct})
		last := ""
		if len(m.path) > 0 {
			last = m.path[len(m.path)-1].Actions
		}
		if len(m.path) != c.path || !strings.HasSuffix(last, c.last) || !strings.Contains(m.missing, c.missing) || (m.missing == "") != (c.missing == "") {
			t.Errorf("%s: %d megaflows, the last with actions %q, missing %q; want %d, %q, %q", c.name, len(m.path), last, m.missing, c.path, c.last, c.missing)
		}
		if c.layers == nil {
			continue
		}
		var got []string
		for _, l := range m.layers(delivered) {
			got = append(got, strings.TrimSpace(string(l.Layer)+" "+string(l.Answer)+" "+l.Text))
		}
		if !slices.Equal(got, c.layers) {
			t.Errorf("%s: layers %q, want %q", c.name, got, c.layers)
		}
	}
}

// Who asks waits for who has asked, but not for longer than megaflowTimeout.
func TestOneAsksAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := &Agent{asking: make(chan struct{}, 1)}
		a.asking <- struct{}{}
		begin := time.Now()
		if _, err := a.megaflows(t.Context(), dpctl.KernelDatapath); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != megaflowTimeout {
			t.Errorf("after %v: %v", time.Since(begin), err)
		}
	})
}
