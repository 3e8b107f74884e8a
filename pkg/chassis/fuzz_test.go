package chassis

import (
	"maps"
	"testing"

	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
)

// Whatever strings the databases hold, a step neither panics nor writes what the schemas refuse.
func FuzzStep(f *testing.F) {
	f.Add("hv1", "ovn-encap-ip", "10.0.0.1", "ct-zone-p1", "7", "p1", "hv2@10.0.0.2", "hv2", "10.0.0.2")
	f.Add("a@b", "ovn-bridge-mappings", "phys:br-ex,:,x", "ct-zone-", "0", "", "@", "", "fd00::")
	f.Add("é", "ovn-bridge", "br int", "ct-zone-\x00", "-1", "\n", "hv2@", "ééééééé", "no address")
	f.Fuzz(func(t *testing.T, name, key, value, zoneKey, zone, iface, tunnel, chassis, ip string) {
		m := newModel()
		root := *m.table(OpenvSwitch, vswitchdb.OpenvSwitchTable)[rootUUID].(*vswitchdb.OpenvSwitch)
		root.ExternalIDs = maps.Clone(root.ExternalIDs)
		root.ExternalIDs["system-id"] = name
		root.ExternalIDs[key] = value
		root.OtherConfig = map[string]string{indexPrefix + name: zone}
		m.put(OpenvSwitch, vswitchdb.OpenvSwitchTable, rootUUID, &root)
		m.addBridge("br-int")
		u, b := find[vswitchdb.Bridge](m, OpenvSwitch, vswitchdb.BridgeTable, "name", "br-int")
		b.ExternalIDs = map[string]string{zoneKey: zone}
		m.put(OpenvSwitch, vswitchdb.BridgeTable, u, b)
		m.addIface("i1", "br-int", map[string]string{"iface-id": iface, "encap-ip": ip})
		m.addIface("i2", "br-int", map[string]string{"type": "geneve", "port:ovn-chassis-id": tunnel})
		m.addChassis(chassis, "geneve", ip)
		m.vswitchd()
		d := newDriver(m)
		if err := m.command("switch sw1"); err != nil {
			t.Skip(err) // the rows above are none that a database could hold
		}
		dp, _ := m.datapath("sw1")
		m.addPort(iface, dp)
		if err := d.settle(); err != nil {
			t.Fatal(err)
		}
	})
}
