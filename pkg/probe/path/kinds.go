package path

//go:generate go test -run=TestDocument -update .

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

	// Process says that packets wait for a process on their way: a load that polls on all CPUs would keep it from running.
	Process bool

	// Function says that it takes functions of a NIC.
	Function bool

	build func(context.Context, *site) error
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
		Name: "host", Nodes: 1, Passes: "loopback", Stands: []string{"local run (000)"},
		build: buildHost,
	},
	{
		Name: "metal", Nodes: 2, Passes: "wire, which is a veth pair between two nodes", Stands: []string{"bare metal (000)", "physical (003)"},
		Options: onWire, build: buildMetal,
	},
	{
		Name: "net-host", Nodes: 2, Passes: "wire: a pod with its node's network namespace, which is the same as metal", Stands: []string{"--net=host (000)", "host (001)"},
		Options: onWire, build: buildMetal,
	},
	{
		Name: "macvlan", Nodes: 2, Passes: "macvlan in mode bridge, wire, macvlan", Stands: []string{"macvlan (000, 003, 004)"},
		Needs: "macvlan", Options: onWire, build: buildMacvlan,
	},
	{
		Name: "ipvlan-l2", Nodes: 2, Passes: "ipvlan in mode L2, wire, ipvlan", Stands: []string{"ipvlan (001)"},
		Needs: "ipvlan", Options: onWire, build: buildIpvlanL2,
	},
	{
		Name: "ipvlan-l3", Nodes: 2, Passes: "ipvlan in mode L3, route of the node, wire, ipvlan", Stands: []string{"ipvlan (001)"},
		Needs: "ipvlan", Options: onWire, build: buildIpvlanL3(netlink.IPVLAN_MODE_L3),
	},
	{
		Name: "ipvlan-l3s", Nodes: 2, Passes: "ipvlan in mode L3S, route and netfilter of the node, wire, the same, ipvlan", Stands: []string{"ipvlan (001)"},
		Needs: "ipvlan with L3S", Options: onWire, build: buildIpvlanL3(netlink.IPVLAN_MODE_L3S),
	},
	{
		Name: "veth", Nodes: 1, Passes: "veth pair, routing of the node, veth pair", Stands: []string{"etun (003)"},
		Options: []string{OptionMTU, OptionRules}, build: buildVeth,
	},
	{
		Name: "bridge", Nodes: 1, Passes: "veth pair, bridge, veth pair", Stands: []string{"docker bridge (000)", "bridge (003)"},
		Needs: "bridge", Options: []string{OptionMTU}, build: buildBridge,
	},
	{
		Name: "bridge-nat", Nodes: 2, Passes: "veth pair, bridge, routing, masquerading, wire, translation to the pod, routing, bridge, veth pair",
		Stands: []string{"docker, published port (000)"},
		Needs:  "bridge, nf_tables with NAT", Options: onRouters, Translates: true, build: buildBridgeNAT,
	},
	{
		Name: "routed", Nodes: 2, Passes: "veth pair, routing, wire, routing, veth pair", Stands: []string{"calico without IPIP (000, 002, 004)", "etun (003)"},
		Options: onRouters, build: buildRouted(false),
	},
	{
		Name: "routed-rules", Nodes: 2, Passes: "as routed, with rules that match nothing and conntrack on both nodes", Stands: []string{"calico with policies (000, 004)"},
		Needs: "nf_tables with conntrack", Options: onRouters, build: buildRoutedRules,
	},
	{
		Name: "flowtable", Nodes: 2, Passes: "as routed, past routing and netfilter by a flow table at the ingress of devices", Stands: []string{"netfilter flowtable (004)"},
		Needs: "nf_tables with flow tables", Options: onRouters, build: buildFlowtable,
	},
	{
		Name: "bpf-redirect", Nodes: 2, Passes: "veth pair, BPF to the wire, wire, BPF into the pod", Stands: []string{"cilium (004)"},
		Needs: "BPF with bpf_redirect_peer, tcx or cls_bpf", Options: onWire, build: buildBPF,
	},
	{
		Name: "service", Nodes: 2, Passes: "as routed, with the service's address translated on the client's node", Stands: []string{"kube-proxy, service path (004)"},
		Needs: "nf_tables with NAT", Options: onRouters, Translates: true, build: buildService,
	},
	{
		Name: "hostgw", Nodes: 2, Passes: "veth pair, bridge, routing, wire, routing, bridge, veth pair", Stands: []string{"flannel host-gw (001)", "flannel aws-vpc (001)"},
		Needs: "bridge", Options: onRouters, build: buildRouted(true),
	},
	{
		Name: "ipip", Nodes: 2, Passes: "veth pair, routing, IP in IP, wire, the same back", Stands: []string{"calico with IPIP (000)"},
		Needs: "ipip", Options: onRouters, build: ipip.build,
	},
	{
		Name: "gre", Nodes: 2, Passes: "veth pair, routing, GRE, wire, the same back", Stands: []string{"antrea with GRE (004)"},
		Needs: "gre", Options: onRouters, build: gre.build,
	},
	{
		Name: "overlay-vxlan", Nodes: 2, Passes: "veth pair, bridge with a VXLAN port, wire, the same back", Stands: []string{"docker overlay (000)", "libnetwork (002)"},
		Needs: "bridge, vxlan", Options: onWire, build: buildOverlay,
	},
	{
		Name: "flannel-vxlan", Nodes: 2, Passes: "veth pair, bridge, routing, VXLAN, wire, the same back", Stands: []string{"flannel vxlan (001, 002, 004)"},
		Needs: "bridge, vxlan", Options: onRouters, build: flannelVXLAN.build,
	},
	{
		Name: "geneve", Nodes: 2, Passes: "veth pair, routing, Geneve, wire, the same back", Stands: []string{"OVN over Geneve without its pipeline (004)"},
		Needs: "geneve", Options: onRouters, build: geneve.build,
	},
	{
		Name: "wireguard", Nodes: 2, Passes: "veth pair, routing, WireGuard, wire, the same back", Stands: []string{"weave with encryption (000)", "cilium, calico with WireGuard (004)"},
		Needs: "wireguard", Options: onRouters, build: buildWireGuard,
	},
	{
		Name: "tun-udp", Nodes: 2, Passes: "veth pair, routing, TUN, a process that sends it in UDP, wire, the same back", Stands: []string{"flannel udp (002)", "weave sleeve (000)"},
		Needs: "tun", Options: onRouters, Process: true, build: buildSleeve,
	},
	{
		Name: "ovs", Nodes: 1, Passes: "veth pair, Open vSwitch's kernel datapath, veth pair", Stands: []string{"OVS kernel model (004)", "openvswitch CNI (004)"},
		Needs: "openvswitch, and its programs", Options: []string{OptionMTU}, build: buildOVS(kernelDatapath),
	},
	{
		Name: "ovs-ct", Nodes: 1, Passes: "as ovs, with conntrack of each packet", Stands: []string{"OVS with conntrack, as OVN's ACLs (004)"},
		Needs: "openvswitch with conntrack, and its programs", Options: []string{OptionMTU}, build: buildOVS(kernelDatapath, conntrackFlows...),
	},
	{
		Name: "ovs-vxlan", Nodes: 2, Passes: "veth pair, Open vSwitch's kernel datapath, VXLAN, wire, the same back", Stands: []string{"weave fastdp (002)", "antrea encap (004)"},
		Needs: "openvswitch, vxlan, and its programs", Options: onWire, build: buildOVSTunnel("vxlan", vxlanOverhead),
	},
	{
		Name: "ovs-geneve", Nodes: 2, Passes: "veth pair, Open vSwitch's kernel datapath, Geneve, wire, the same back", Stands: []string{"antrea encap (004)"},
		Needs: "openvswitch, geneve, and its programs", Options: onWire, build: buildOVSTunnel("geneve", geneveOverhead),
	},
	{
		Name: "ovs-user", Nodes: 1, Passes: "veth pair, ovs-vswitchd, veth pair", Stands: []string{"OVS user space model (004)"},
		Needs: "Open vSwitch's programs", Options: []string{OptionMTU}, Process: true, build: buildOVS(userspaceDatapath),
	},
	{
		Name: "ovs-tc", Nodes: 1, Passes: "veth pair, OVN's pipeline in TC filters of offloadd, veth pair", Stands: []string{"OVS with TC offload, in software (004)"},
		Needs: "openvswitch, flower, act_ct, OVN's programs and offloadd", Options: []string{OptionMTU}, build: buildOVN(false, true),
	},
	{
		Name: "ovn-geneve", Nodes: 2, Passes: "veth pair, OVN's pipeline in Open vSwitch's kernel datapath, Geneve, wire, the same back",
		Stands: []string{"OVN over Geneve (004)"},
		Needs:  "openvswitch, geneve, OVN's programs and offloadd", Options: onChassis, build: buildOVN(true, false),
	},
	{
		Name: "ovn-geneve-tc", Nodes: 2, Passes: "veth pair, OVN's pipeline in TC filters of offloadd, Geneve, wire, the same back",
		Stands: []string{"OVN over Geneve with TC offload, in software (004)"},
		Needs:  "openvswitch, geneve, flower, act_ct, OVN's programs and offloadd", Options: onWire, build: buildOVN(true, true),
	},
	{
		Name: "vf", Passes: "a NIC's virtual function, its embedded switch, another virtual function", Stands: []string{"SR-IOV (000)", "OVN offload, VF (004)"},
		Needs: "a NIC with SR-IOV in switchdev mode, and the daemon with two free virtual functions", Function: true, build: buildFunctions,
	},
	{
		Name: "sf", Passes: "a NIC's subfunction, its embedded switch, another subfunction", Stands: []string{"OVN offload, SF (004)"},
		Needs: "a NIC with subfunctions in switchdev mode, and the daemon with two that are free", Function: true, build: buildFunctions,
	},
}
