package path

import (
	"context"
	"slices"

	"github.com/vishvananda/netlink"
)

// A Kind is a way to get packets from one end to the other.
type Kind struct {
	Name   string
	Passes string   // what a packet passes, in a line
	Stands []string // systems of the studies, as they call them
	Needs  string   // of the kernel and the machine, beyond network namespaces and veth
	Nodes  int      // 0: on the hardware's terms
	// Options are those that a Want of this kind may have, besides name and twin.
	Options []string

	// Translates says that the client sends to another address than the server's.
	Translates bool

	// build makes a path. Nil: it takes a Builder, and absent says why there is none.
	build  func(context.Context, *site) error
	absent string
}

// Kinds returns all kinds, from those that do least for a packet to those that do most.
func Kinds() []Kind { return slices.Clone(kinds) }

func find(name string) (Kind, bool) {
	i := slices.IndexFunc(kinds, func(k Kind) bool { return k.Name == name })
	if i < 0 {
		return Kind{}, false
	}
	return kinds[i], true
}

var kinds = []Kind{
	{
		Name: "host", Passes: "loopback", Stands: []string{"local run (000)"},
		build: buildHost,
	},
	{
		Name: "metal", Nodes: 2, Passes: "a wire between two nodes, which is a veth pair", Stands: []string{"bare metal (000)", "physical (003)"},
		Options: onWire, build: buildMetal,
	},
	{
		Name: "net-host", Nodes: 2, Passes: "the same as metal: a pod with its node's network namespace", Stands: []string{"--net=host (000)", "host (001)"},
		Options: onWire, build: buildMetal,
	},
	{
		Name: "macvlan", Nodes: 2, Passes: "macvlan in mode bridge, wire, macvlan", Stands: []string{"macvlan (000, 003, 004)"},
		Needs: "macvlan", Options: onWire, build: buildMacvlan,
	},
	{
		Name: "ipvlan-l2", Nodes: 2, Passes: "ipvlan in mode L2, wire, ipvlan", Stands: []string{"ipvlan (001)"},
		Needs: "ipvlan", Options: onWire, build: buildIpvlan(netlink.IPVLAN_MODE_L2),
	},
	{
		Name: "veth", Nodes: 1, Passes: "veth pair, routing of the node, veth pair", Stands: []string{"etun (003)"},
		Options: everywhere, build: buildVeth,
	},
	{
		Name: "bridge", Nodes: 1, Passes: "veth pair, bridge, veth pair", Stands: []string{"docker bridge (000)", "bridge (003)"},
		Needs: "bridge", Options: everywhere, build: buildBridge,
	},
}
