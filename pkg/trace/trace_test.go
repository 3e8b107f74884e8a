package trace

import (
	"fmt"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// The rows of the test's network, by number.
const (
	sw0 = iota + 1
	lr0
	p1
	p2
	r1
	free
	toRouter
	toSwitch
	flood
	n1
	n2
	flows // from here on
)

func id(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

// network is a switch with two ports here and one on n2, and a router.
func network(t testing.TB) Network {
	t.Helper()
	s := sb.NewStore()
	add := func(table string, n int, row any) {
		if d := s.Apply([]sb.Update{{Table: table, UUID: id(n), New: row}}); len(d.Refused) > 0 {
			t.Fatal(d.Refused[0].Err)
		}
	}
	add("Datapath_Binding", sw0, &sbdb.DatapathBinding{UUID: id(sw0), TunnelKey: 1, ExternalIDs: map[string]string{"name": "sw0", "logical-switch": id(sw0)}})
	add("Datapath_Binding", lr0, &sbdb.DatapathBinding{UUID: id(lr0), TunnelKey: 2, ExternalIDs: map[string]string{"name": "lr0", "logical-router": id(lr0)}})
	add("Chassis", n1, &sbdb.Chassis{UUID: id(n1), Name: "n1"})
	add("Chassis", n2, &sbdb.Chassis{UUID: id(n2), Name: "n2"})
	port := func(n int, name string, dp, key int, typ, peer string, host int) {
		p := &sbdb.PortBinding{UUID: id(n), LogicalPort: name, Datapath: id(dp), TunnelKey: key, Type: typ}
		if host != 0 {
			p.Chassis = new(id(host))
		}
		if peer != "" {
			p.Options = map[string]string{"peer": peer}
		}
		add("Port_Binding", n, p)
	}
	port(p1, "p1", sw0, 1, "", "", n1)
	port(p2, "p2", sw0, 2, "", "", n1)
	port(r1, "r1", sw0, 3, "", "", n2)
	port(free, "free", sw0, 5, "", "", 0)
	port(toRouter, "sw0-lr0", sw0, 4, "patch", "lr0-sw0", 0)
	port(toSwitch, "lr0-sw0", lr0, 1, "patch", "sw0-lr0", 0)
	add("Multicast_Group", flood, &sbdb.MulticastGroup{UUID: id(flood), Name: "_MC_flood", Datapath: id(sw0), TunnelKey: 0x8000, Ports: []string{id(p1), id(p2), id(r1)}})
	add("Address_Set", flows-1+100, &sbdb.AddressSet{UUID: id(flows - 1 + 100), Name: "as1", Addresses: []string{"10.0.0.1"}})
	for i, f := range []struct {
		dp              int
		pipeline        string
		table, priority int
		match, actions  string
	}{
		{sw0, "ingress", 0, 100, "vlan.present", "drop;"},
		{sw0, "ingress", 0, 50, "1", "next;"},
		{sw0, "ingress", 1, 100, "ip4", "ct_next;"},
		{sw0, "ingress", 1, 0, "1", "next;"},
		{sw0, "ingress", 2, 100, "ct.inv", "drop;"},
		{sw0, "ingress", 2, 0, "1", "next;"},
		{sw0, "ingress", 3, 70, "eth.mcast", `outport = "_MC_flood"; output;`},
		{sw0, "ingress", 3, 50, "eth.dst == 0a:00:00:00:00:01", `outport = "p1"; output;`},
		{sw0, "ingress", 3, 50, "eth.dst == 0a:00:00:00:00:02", `outport = "p2"; output;`},
		{sw0, "ingress", 3, 50, "eth.dst == 0a:00:00:00:00:03", `outport = "r1"; output;`},
		{sw0, "ingress", 3, 50, "eth.dst == 0a:00:00:00:00:05", `outport = "free"; output;`},
		{sw0, "ingress", 3, 50, "eth.dst == 0a:00:00:00:00:fe", `outport = "sw0-lr0"; output;`},
		{sw0, "egress", 0, 0, "1", "output;"},
		{lr0, "ingress", 0, 50, "ip4.dst == 10.0.0.0/24", `ip.ttl--; eth.dst = 0a:00:00:00:00:02; outport = "lr0-sw0"; flags.loopback = 1; output;`},
		{lr0, "egress", 0, 0, "1", "output;"},
	} {
		add("Logical_Flow", flows+i, &sbdb.LogicalFlow{
			UUID: id(flows + i), LogicalDatapath: new(id(f.dp)), Pipeline: f.pipeline, TableID: f.table, Priority: f.priority, Match: f.match, Actions: f.actions,
		})
	}
	uuid := func(n int) sb.UUID {
		u, err := sb.ParseUUID(id(n))
		if err != nil {
			t.Fatal(err)
		}
		return u
	}
	local := &chassis.Local{
		Name: "n1", Chassis: uuid(n1),
		Datapaths: map[sb.UUID]*chassis.LocalDatapath{uuid(sw0): {UUID: uuid(sw0), IsSwitch: true}, uuid(lr0): {UUID: uuid(lr0)}},
		Ports:     map[string]chassis.LocalPort{"p1": {OFPort: 1}, "p2": {OFPort: 2}},
		Related:   map[sb.UUID]struct{}{uuid(p1): {}, uuid(p2): {}, uuid(toRouter): {}, uuid(toSwitch): {}},
		Zones:     map[string]uint16{"p1": 11, "p2": 12},
		Tunnels:   []chassis.Tunnel{{Chassis: "n2", Type: "geneve", RemoteIP: "172.31.0.2", OFPort: 9}},
	}
	var b eval.Builder
	engine := compile.NewEngine()
	engine.Recompute(compile.Input{SB: s, Local: local, Geneve: ir.TunMetadata0}, func(r compile.Replacement) {
		b.Add(eval.Owner{Row: r.Owner.Row, Part: r.Owner.Datapath}, r.Rules, nil)
	})
	for _, skip := range engine.Skips() {
		t.Fatal(skip.Err)
	}
	return Network{SB: s, Local: local, Program: b.Program()}
}

// TestTrace runs microflows, each with the states of connections before it in brackets and the datapath before that.
func TestTrace(t *testing.T) {
	n := network(t)
	golden.Run(t, "testdata/trace.txt", func(in string) string {
		req := Request{Microflow: in}
		if dp, rest, ok := strings.Cut(in, ": "); ok && !strings.ContainsAny(dp, " \"") {
			req.Datapath, req.Microflow = dp, rest
		}
		if states, rest, ok := strings.Cut(req.Microflow, "] "); ok {
			req.CT, req.Microflow = strings.Fields(strings.TrimPrefix(states, "[")), rest
		}
		var b strings.Builder
		err := Run(n, req, func(s Step) {
			fmt.Fprintf(&b, "%s%s\n", strings.Repeat("    ", s.Depth), s.Text)
		})
		if err != nil {
			fmt.Fprintf(&b, "%s: %v\n", reason.Of(err), err)
		}
		return strings.TrimSuffix(b.String(), "\n")
	})
}

// Whatever the microflow, Run returns, and its errors have a reason.
func FuzzRun(f *testing.F) {
	for _, s := range []string{`inport == "p1"`, `inport == "p1" && ip4.src == $as1`, `inport == @pg`, `is_chassis_resident("p1")`, "1", "0", `reg0 == 1`} {
		f.Add(s, "trk,est")
	}
	n := network(f)
	f.Fuzz(func(t *testing.T, microflow, state string) {
		if err := Run(n, Request{Microflow: microflow, CT: []string{state}}, func(Step) {}); err != nil && reason.Of(err) == reason.Internal {
			t.Errorf("Run(%q, %q): %v", microflow, state, err)
		}
	})
}
