package specialize

import "fmt"

// A Reason says why packets are left to Open vSwitch. It is a normal result: the packets' path is as without filters.
type Reason uint8

// The reasons. Their order is that of the documentation.
const (
	NoReason Reason = iota
	NewConnection
	Commits
	Translates
	SelectGroup
	PacketIn
	Learns
	LearnedTable
	Metered
	Sampled
	Queued
	PacketSize
	SeveralCopies
	CopiedField
	NoKey
	VLANTag
	NoDevice
	TunnelType
	Failover
	Transit
	Fragments
	Multicast
	ShortTTL
	ICMPErrors
	NeighbourDiscovery
	DHCP
	NotIP
	TooManyRules
	TooDeep
	Probed
	numReasons
)

// ReasonDoc explains a reason to people.
type ReasonDoc struct {
	Name string // stable, for programs
	Text string // what it is about, a sentence
	Fix  string // what would change it, a sentence
}

var reasonDocs = [numReasons]ReasonDoc{
	NoReason: {"none", "The packets do not reach Open vSwitch.", "Nothing to do."},
	NewConnection: {
		"new-connection", "The connection is not established in the zone that was asked.",
		"Nothing to do: Open vSwitch commits the connection, and its later packets are forwarded by filters.",
	},
	Commits: {
		"commit", "The flow commits the connection, or changes what the connection tracker remembers of it.",
		"Nothing to do if it is the first packets only.",
	},
	Translates: {
		"nat", "The flow translates addresses (load balancer, NAT): after that the packet cannot be given back untouched.",
		"Keep traffic that needs no translation on switches and routers without load balancers and NAT.",
	},
	SelectGroup: {
		"select-group", "The flow chooses among several ways (a load balancer's backends, ECMP routes), for which flower has no action.",
		"Use single routes where throughput counts.",
	},
	PacketIn: {
		"packet-in", "A program has to see the packet: ACL logging, rejected connections, ARP, ND, DHCP, DNS.",
		"Turn off log on ACLs that match much traffic.",
	},
	Learns:       {"learn", "The flow makes Open vSwitch learn another flow.", "Avoid load-balancer affinity and symmetric ECMP replies."},
	LearnedTable: {"learned-table", "The flow asks a table that Open vSwitch fills by itself.", "Avoid load-balancer affinity, hairpin replies and symmetric ECMP replies."},
	Metered:      {"meter", "The flow is limited by a meter.", "Limit rates at the port (the function's tx_max) instead of by QoS rules."},
	Sampled:      {"sample", "The flow is sampled.", "Turn off sampling on ACLs that match much traffic."},
	Queued:       {"queue", "The flow chooses a queue.", "Remove qdisc_queue_id from the port."},
	PacketSize: {
		"packet-size", "The flow asks for the packet's size (gateway_mtu), for which flower has no key.",
		"Remove gateway_mtu from the router port where all MTUs are equal.",
	},
	SeveralCopies: {
		"several-copies", "The packet goes to several ports: broadcast, multicast, unknown destinations.",
		"Give ports their addresses, so that destinations are known.",
	},
	CopiedField: {"copied-field", "A field of the packet is copied to another one, for which TC has no action.", "Nothing to do: this is how routers answer."},
	NoKey:       {"no-key", "The flow asks for something that flower has no key for.", "Avoid the field in ACLs on ports that should be offloaded."},
	VLANTag:     {"vlan", "The flow adds, removes or changes a VLAN tag.", "Use ports without tags."},
	NoDevice: {
		"no-device", "The port is not a network device that filters can send to: a patch port, or a device that is not there.",
		"Nothing to do for localnet ports.",
	},
	TunnelType: {"tunnel-type", "The tunnel is no Geneve tunnel of this chassis.", "Use Geneve: set external_ids:ovn-encap-type=geneve."},
	Failover:   {"failover", "The flow sends to the first of several gateways that is alive.", "Nothing to do: Open vSwitch watches the tunnels."},
	Transit: {
		"transit", "The packet came through a tunnel and is not for a port of this chassis alone: it has to be routed here.",
		"Nothing to do: routers are distributed, only gateways route what comes through tunnels.",
	},
	Fragments:  {"fragment", "The packet is a fragment.", "Use an MTU that needs no fragments."},
	Multicast:  {"multicast", "The destination is a multicast or broadcast address.", "Nothing to do."},
	ShortTTL:   {"ttl", "The packet's TTL or hop limit may not last.", "Nothing to do."},
	ICMPErrors: {"icmp-error", "The packet is an ICMP error, which belongs to another connection.", "Nothing to do."},
	NeighbourDiscovery: {
		"nd", "The packet is IPv6 neighbour or multicast listener discovery.", "Nothing to do.",
	},
	DHCP:         {"dhcp", "The packet is a DHCPv6 request.", "Nothing to do."},
	NotIP:        {"not-ip", "The packet is no IPv4 or IPv6 packet, or has a VLAN tag.", "Nothing to do."},
	TooManyRules: {"budget", "The chain has as many rules as it may have.", "Raise the budget, or use fewer or simpler ACLs."},
	TooDeep:      {"depth", "The way through switches and routers takes more chains than the kernel follows.", "Use fewer routers between the ports."},
	Probed:       {"probe", "The packet is one of a probe, which measures the way through Open vSwitch with it.", "Nothing to do."},
}

// Reasons returns all reasons but NoReason, in order.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons-1)
	for r := NoReason + 1; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}

// Doc returns what people should know about r.
func (r Reason) Doc() ReasonDoc {
	if r >= numReasons {
		panic(fmt.Sprintf("specialize: reason %d", r))
	}
	return reasonDocs[r]
}

// String returns the reason's stable name.
func (r Reason) String() string { return r.Doc().Name }
