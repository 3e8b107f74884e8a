// Package topology makes compiled programs of real deployments for tests of what takes programs: an ovn-northd(8) turns a content
// of the Northbound into logical flows, a chassis without a switch claims its ports, and pkg/compile compiles the result.
//
//	t, err := topology.Fixed("cluster")     // a hand-made content, by name: see Names
//	t, err := topology.Random(17)           // one drawn from a seed
//	t, err := topology.Named("17")          // either
//	for _, o := range t.Owned {             // what pkg/compile emits, in its order
//		builder.Add(o.Owner, o.Rules, o.Groups)
//	}
//	program := t.Program()                  // the same as an eval.Program
//	t.Ports, t.Tunnels, t.Patches           // the OpenFlow ports, and the devices behind them
//	t.Geneve                                // the tun_metadata field of OVN's Geneve option
//	t.Zones                                 // the conntrack zones, by logical port or datapath
//	rules, in := t.Specialize()             // what pkg/specialize takes
//
// No Open vSwitch runs: its ports' numbers are made up, and so are the devices and their indexes. Local port i of a content is
// device v<i> with OpenFlow port 10+i; tunnels have the OpenFlow ports from 1000 on and share the device genev_sys_6081; patch
// ports to other bridges, from 2000 on, have no device. The program of a content is the same each time it is made: tunnel keys are
// fixed before ovn-northd starts, and UUIDs are replaced by ones that follow from what the rows say.
//
// Making a topology takes about a second and needs Debian's openvswitch-common and ovn-central, but no privileges. Those made are
// kept for the life of the process.
package topology
