package chassis

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// randomCommand returns something that a user, another chassis or northd might do. The world is small, so that
// commands meet.
func randomCommand(rnd *rand.Rand) string {
	pick := func(list ...string) string { return list[rnd.IntN(len(list))] }
	port := func() string { return pick("p1", "p2", "p3", "p4") }
	dp := func() string { return pick("sw1", "sw2", "sw3") }
	iface := func() string { return pick("i1", "i2", "i3", "i4") }
	switch rnd.IntN(32) {
	case 0, 1, 2:
		return fmt.Sprintf("iface %s iface-id=%s", iface(), port())
	case 3:
		return fmt.Sprintf("iface %s iface-id=%s encap-ip=%s", iface(), port(), pick("10.0.0.1", "10.0.0.9"))
	case 4:
		return fmt.Sprintf("iface %s iface-id=%s iface-id-ver=%s", iface(), port(), pick("1", "2"))
	case 5:
		return fmt.Sprintf("iface %s bridge=br-ex iface-id=%s", iface(), port())
	case 6:
		return "del-iface " + iface()
	case 7:
		return fmt.Sprintf("ofport %s %s", iface(), pick("7", "8", "-1", "0", "70000"))
	case 8, 9, 10:
		return fmt.Sprintf("port %s %s", port(), dp())
	case 11:
		return fmt.Sprintf("port %s %s requested=%s", port(), dp(), pick("hv1", "host1", "hv2", "hv2,hv1", "hv1,hv2", "nobody"))
	case 12:
		return fmt.Sprintf("port %s %s parent=%s", port(), dp(), port())
	case 13:
		return fmt.Sprintf("port %s %s type=%s", port(), dp(), pick("localport", "localnet", "virtual", "remote", "nonsense"))
	case 14:
		return fmt.Sprintf("port %s %s iface-id-ver=%s", port(), dp(), pick("1", "2"))
	case 15:
		return "del-port " + port()
	case 16:
		// The switch side and the router side of an attachment.
		n := pick("1", "2", "3")
		return fmt.Sprintf("port s%s-r1 sw%s type=patch peer=r1-s%s", n, n, n)
	case 17:
		n := pick("1", "2", "3")
		return fmt.Sprintf("port r1-s%s r1 type=patch peer=s%s-r1", n, n)
	case 18:
		return "router r1" + pick("", "", " snat-ct-zone=7", " snat-ct-zone=1")
	case 19:
		return "switch " + dp()
	case 20:
		return "del-datapath " + pick("sw1", "sw2", "sw3", "r1")
	case 21:
		return fmt.Sprintf("bind %s %s", port(), pick("hv2", "hv3", "hv1"))
	case 22:
		return fmt.Sprintf("up %s %s", port(), pick("true", "false"))
	case 23:
		return fmt.Sprintf("chassis hv2 %s", pick("geneve:10.0.0.2", "vxlan:10.0.0.2", "geneve:10.0.0.2,vxlan:10.0.0.2", "stt:10.0.0.2",
			"geneve:10.0.0.2,geneve:10.0.1.2", "geneve:10.0.0.2 zones=z1"))
	case 24:
		return fmt.Sprintf("chassis hv3 %s", pick("geneve:fd00::3", "vxlan:10.0.0.3 zones=z1,z2"))
	case 25:
		return "del-chassis " + pick("hv1", "hv2", "hv3")
	case 26:
		return "ovs " + pick("ovn-encap-tos=inherit", "-ovn-encap-tos", "ovn-encap-csum=false", "-ovn-encap-csum", "ovn-set-local-ip=true",
			"-ovn-set-local-ip", "ovn-encap-df_default-hv1=true", "-ovn-encap-df_default-hv1")
	case 27:
		return "ovs " + pick("ovn-encap-type=geneve", "ovn-encap-type=vxlan", "ovn-encap-type=geneve,vxlan", "ovn-encap-ip=10.0.0.1",
			"ovn-encap-ip=10.0.0.1,10.0.0.9", "ovn-transport-zones=z1", "-ovn-transport-zones")
	case 28:
		return "ovs " + pick("ovn-monitor-all=true", "-ovn-monitor-all", "ovn-bridge-mappings=phys:br-ex", "-ovn-bridge-mappings",
			"ovn-cms-options=enable-chassis-as-gw", "ovn-bridge-datapath-type=netdev")
	case 29:
		return fmt.Sprintf("nb_cfg %d", 1+rnd.IntN(9))
	case 30:
		return pick("unmark "+iface(), "del-bridge br-int", "del-iface ovn-hv2-0", "bridge br-int")
	default:
		return pick("hold", "release", "disconnect", "connect", "time 700", "step", "settle")
	}
}

// history runs random commands with a step here and there, and then lets things settle.
func history(rnd *rand.Rand, d *driver, length int) (lines []string, err error) {
	lines = []string{"bridge br-ex", "switch sw1", "switch sw2", "router r1", "chassis hv2 geneve:10.0.0.2"}
	for range length {
		lines = append(lines, randomCommand(rnd))
		for range rnd.IntN(3) {
			lines = append(lines, "step")
		}
	}
	lines = append(lines, "release", "connect", "settle")
	for i, line := range lines {
		if err := d.do(line); err != nil {
			return lines[:i+1], fmt.Errorf("%s: %w", line, err)
		}
	}
	return lines, nil
}

// After any history the plan comes to an end, and where it ends depends only on what others have written, not on
// how that came about: it is what a chassis that starts afresh makes of it. A program that starts again on what is
// there changes nothing.
func TestFixedPoint(t *testing.T) {
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	for seed := range seeds {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m := newModel()
		d := newDriver(m)
		d.rnd = rnd
		lines, err := history(rnd, d, 40)
		if err != nil {
			t.Fatalf("seed %d: after\n%s\n%s\n%s", seed, strings.Join(lines, "\n"), tail(m.text(d.output.String()), 30), m.text(err.Error()))
		}
		want := d.summary()

		d.restart()
		d.output.Reset()
		if err := d.settle(); err != nil {
			t.Fatalf("seed %d: after a restart: %s", seed, m.text(err.Error()))
		}
		for line := range strings.Lines(d.output.String()) {
			op := strings.HasPrefix(line, "  + ") || strings.HasPrefix(line, "  - ") || strings.HasPrefix(line, "  ~ ")
			if op && !strings.Contains(line, "ovn-startup-ts") || strings.HasPrefix(line, "  flush") {
				t.Fatalf("seed %d: after\n%s\na restart does\n%s", seed, strings.Join(lines, "\n"), d.output.String())
			}
		}
		if diff := cmp.Diff(want, d.summary()); diff != "" {
			t.Fatalf("seed %d: after a restart (-before +after):\n%s", seed, diff)
		}

		fresh := newDriver(forget(t, d))
		if err := fresh.settle(); err != nil {
			t.Fatalf("seed %d: fresh: %s", seed, fresh.m.text(err.Error()))
		}
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(fresh.summary(), "\n")); diff != "" {
			t.Fatalf("seed %d: after\n%s\n(-history +fresh):\n%s", seed, strings.Join(lines, "\n"), diff)
		}
	}
}

// forget returns the databases as they are without anything this chassis wrote.
func forget(t *testing.T, d *driver) *model {
	m := newModel()
	m.names, m.serial, m.ofport = d.m.names, d.m.serial, d.m.ofport
	m.rows = d.m.rows
	for u, r := range m.table(Southbound, sbdb.ChassisTable) {
		if r.(*sbdb.Chassis).Name == "hv1" {
			delete(m.table(Southbound, sbdb.ChassisTable), u)
		}
	}
	clear(m.table(Southbound, sbdb.ChassisPrivateTable))
	for u, r := range m.table(Southbound, sbdb.PortBindingTable) {
		p := *r.(*sbdb.PortBinding)
		if p.Chassis != nil && m.table(Southbound, sbdb.ChassisTable)[*p.Chassis] == nil {
			down := false
			p.Up = &down
		}
		m.put(Southbound, sbdb.PortBindingTable, u, &p)
	}
	for u, r := range m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable) {
		root := *r.(*vswitchdb.OpenvSwitch)
		root.OtherConfig, root.Datapaths = nil, nil
		m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, u, &root)
	}
	for u, r := range m.table(OpenvSwitch, vswitchdb.BridgeTable) {
		b := *r.(*vswitchdb.Bridge)
		b.ExternalIDs, b.FailMode = nil, nil
		b.Ports = slices.DeleteFunc(slices.Clone(b.Ports), func(p string) bool {
			return m.table(OpenvSwitch, vswitchdb.PortTable)[p].(*vswitchdb.Port).ExternalIDs["ovn-chassis-id"] != ""
		})
		m.put(OpenvSwitch, vswitchdb.BridgeTable, u, &b)
	}
	for u, r := range m.table(OpenvSwitch, vswitchdb.InterfaceTable) {
		i := *r.(*vswitchdb.Interface)
		ids := map[string]string{}
		for k, v := range i.ExternalIDs {
			if !strings.HasPrefix(k, "ovn-installed") {
				ids[k] = v
			}
		}
		i.ExternalIDs = ids
		m.put(OpenvSwitch, vswitchdb.InterfaceTable, u, &i)
	}
	m.collect()
	m.vswitchd()
	if err := m.unique(); err != nil {
		t.Fatal(err)
	}
	return m
}

// Conditional monitoring is an optimisation: with all rows in view the chassis does the same.
func TestConditionsSuffice(t *testing.T) {
	for seed := range uint64(150) {
		run := func(all bool) (string, *Local) {
			m := newModel()
			d := newDriver(m)
			if all {
				if err := d.do("ovs ovn-monitor-all=true"); err != nil {
					t.Fatal(err)
				}
			}
			rnd := rand.New(rand.NewPCG(seed, 2))
			lines := []string{"bridge br-ex", "switch sw1", "switch sw2", "router r1", "chassis hv2 geneve:10.0.0.2"}
			for range 40 {
				if c := randomCommand(rnd); !strings.Contains(c, "ovn-monitor-all") && !strings.HasPrefix(c, "disconnect") {
					lines = append(lines, c)
				}
			}
			lines = append(lines, "release", "settle", "ovs -ovn-monitor-all", "settle")
			if all {
				lines = append(lines[:len(lines)-2], "settle")
			}
			for _, line := range lines {
				if err := d.do(line); err != nil {
					t.Fatalf("seed %d, all %v: %s: %s", seed, all, line, m.text(err.Error()))
				}
			}
			if all {
				s := strings.ReplaceAll(d.summary(), "ovn-monitor-all=true", "ovn-monitor-all=false")
				return s, d.local
			}
			return d.summary(), d.local
		}
		some, a := run(false)
		all, b := run(true)
		if diff := cmp.Diff(strings.Split(all, "\n"), strings.Split(some, "\n")); diff != "" {
			t.Fatalf("seed %d (-all +conditional):\n%s", seed, diff)
		}
		if len(a.Datapaths) != len(b.Datapaths) || !reflect.DeepEqual(a.Related, b.Related) || !reflect.DeepEqual(a.Ports, b.Ports) {
			t.Fatalf("seed %d: Local differs:\n%+v\n%+v", seed, a, b)
		}
	}
}
