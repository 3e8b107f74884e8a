package tc

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

//go:generate go test -run=TestDocument -update .

// A Capability is something that the kernel, or a device, has to be able to do for filters.
type Capability struct {
	Name string // stable, for people and programs
	What string // in a few words

	// Since is the Linux that had it first; empty for a device, where it depends on the driver.
	Since string

	// Needs is the capability without which this one is out of the question; empty: none.
	Needs string

	// Vital says that there are no filters at all without it.
	Vital bool

	Cost string // what is lost without it, a sentence
	Fix  string // what brings it, a sentence

	// filters are those that show that it is there: the kernel accepts them, and gives back what it was given. Nil: it is found
	// out otherwise.
	filters func(trial) []Filter
}

// A trial says where filters are tried.
type trial struct {
	device  string // where packets would come in
	egress  int    // the device to send to
	chain   uint32 // of the filters
	another uint32 // a chain to go to
	pref    uint16
}

const (
	fixKernel = "Use a kernel that is newer."
	fixFlower = "Use a kernel with CONFIG_NET_CLS_FLOWER and CONFIG_NET_ACT_GACT, and its modules cls_flower and act_gact."
	fixCT     = "Use a kernel with CONFIG_NET_ACT_CT, NF_CONNTRACK_MARK, NF_CONNTRACK_ZONES and NF_CONNTRACK_LABELS, and its modules act_ct, nf_conntrack and nf_flow_table."
	fixPedit  = "Use a kernel with CONFIG_NET_ACT_PEDIT, and its module act_pedit."
	fixTunnel = "Use a kernel with CONFIG_NET_ACT_TUNNEL_KEY, and its module act_tunnel_key."

	costNothing = "There are no filters: Open vSwitch forwards all packets."
	costAsking  = "Filters that ask for it are refused, and the packets of their chains go to Open vSwitch."
	costCT      = "Connections are not known to filters: Open vSwitch forwards what ACLs with allow-related concern, which is nearly everything."
	costFrom    = "Packets from tunnels go to Open vSwitch."
	costTo      = "Packets for other nodes go to Open vSwitch."
	costRoute   = "Routed packets go to Open vSwitch."
)

// Names of capabilities that have to be spoken of.
const (
	CapClsact      = "clsact"
	CapFlower      = "flower"
	CapBlock       = "block"
	CapChains      = "chains"
	CapTerse       = "terse"
	CapNoFrag      = "tunnel_key.no_frag"
	CapOpenvswitch = "openvswitch"
	CapResume      = "resume"
	CapCT          = "ct"
	CapSwitch      = "device.switch"
	CapFeature     = "device.hw-tc-offload"
	CapDrop        = "device.drop"
	CapGoto        = "device.chains"
	CapRedirect    = "device.redirect"
)

// Capabilities of the kernel, in the order in which they are tried.
var Capabilities = []Capability{
	{
		Name: CapClsact, What: "filters on arrival, before Open vSwitch", Since: "4.5", Vital: true, Cost: costNothing,
		Fix: "Use a kernel with CONFIG_NET_CLS_ACT and CONFIG_NET_SCH_INGRESS, and its module sch_ingress.",
	},
	{
		Name: CapFlower, What: "the classifier flower, with pass and drop", Since: "4.2", Needs: CapClsact, Vital: true, Cost: costNothing, Fix: fixFlower,
		filters: trials(on(ProtocolAll, nil, Pass{}), on(ProtocolIPv4, nil, Drop{})),
	},
	{
		Name: CapBlock, What: "one block of filters for all devices", Since: "4.16", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixKernel,
	},
	{
		Name: CapChains, What: "chains of filters, and goto", Since: "4.13", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixKernel,
		filters: func(t trial) []Filter {
			first, second := on(ProtocolAll, nil, Goto{t.another})(t), on(ProtocolAll, nil, Pass{})(t)
			second.Chain = t.another
			return []Filter{second, first}
		},
	},
	{
		Name: "indev", What: "a filter of the block for one device", Since: "4.2", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixKernel,
		filters: func(t trial) []Filter {
			f := on(ProtocolAll, nil, Pass{})(t)
			f.Indev = t.device
			return []Filter{f}
		},
	},
	{
		Name: "cookies", What: "marks on actions, by which filters are found again after a restart", Since: "4.12", Needs: CapFlower, Vital: true,
		Cost: costNothing, Fix: fixKernel,
		filters: func(t trial) []Filter {
			f := on(ProtocolAll, nil, Pass{})(t)
			f.Cookie = Cookie{0: 0x0f, 1: 0x1d, 15: 1}
			return []Filter{f}
		},
	},
	{
		Name: CapTerse, What: "lists of filters without their conditions", Since: "5.8", Needs: CapFlower,
		Cost: "Counters of many filters take several times as long to read.", Fix: fixKernel,
	},
	{
		Name: "key.eth", What: "Ethernet addresses", Since: "4.2", Needs: CapFlower, Cost: costAsking, Fix: fixKernel,
		filters: trials(on(ProtocolAll, ir.Match{}.Eq(ir.EthDst, 0x020000000001).Masked(ir.EthSrc, 1<<40, 1<<40), Pass{})),
	},
	{
		Name: "key.ip", What: "IPv4 addresses, protocol and ports, with masks", Since: "4.10", Needs: CapFlower, Cost: costAsking, Fix: fixKernel,
		filters: trials(
			on(ProtocolIPv4, ipv4TCP.Masked(ir.IPDst, 0x0a000000, 0xff000000).Masked(ir.TCPDst, 0x8000, 0x8000), Pass{}),
			on(ProtocolIPv4, ir.Match{}.Eq(ir.IPProto, 17).Eq(ir.IPSrc, 0x0a000001).Eq(ir.UDPSrc, 53), Pass{}),
		),
	},
	{
		Name: "key.ip6", What: "IPv6 addresses, protocol and ports", Since: "4.10", Needs: CapFlower, Cost: "IPv6 goes to Open vSwitch.", Fix: fixKernel,
		filters: trials(on(ProtocolIPv6, with(ipv4TCP.Eq(ir.TCPDst, 80), ir.IPv6Dst, ir.U128{Hi: 0xfd00 << 48}, ir.U128{Hi: ^uint64(0)}), Pass{})),
	},
	{
		Name: "key.tos_ttl", What: "DSCP, TTL and hop limit", Since: "4.13", Needs: CapFlower, Cost: costAsking, Fix: fixKernel,
		filters: trials(
			on(ProtocolIPv4, ir.Match{}.Eq(ir.IPDSCP, 10).Masked(ir.IPTTL, 0, 0xfe), Pass{}),
			on(ProtocolIPv6, ir.Match{}.Eq(ir.IPDSCP, 10).Masked(ir.IPTTL, 0, 0xfe), Pass{}),
		),
	},
	{
		Name: "key.fragment", What: "whether it is a fragment", Since: "4.10", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixKernel,
		filters: trials(on(ProtocolIPv4, ir.Match{}.Masked(ir.IPFrag, 1, 1), Pass{}), on(ProtocolIPv6, ir.Match{}.Masked(ir.IPFrag, 1, 1), Pass{})),
	},
	{
		Name: "key.tcp_flags", What: "TCP flags", Since: "4.13", Needs: CapFlower, Cost: costAsking, Fix: fixKernel,
		filters: trials(on(ProtocolIPv4, ipv4TCP.Masked(ir.TCPFlags, 2, 0x17), Pass{})),
	},
	{
		Name: "key.icmp", What: "ICMP and ICMPv6 types and codes", Since: "4.10", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixKernel,
		filters: trials(
			on(ProtocolIPv4, ir.Match{}.Eq(ir.IPProto, 1).Eq(ir.ICMPType, 8).Eq(ir.ICMPCode, 0), Pass{}),
			on(ProtocolIPv6, ir.Match{}.Eq(ir.IPProto, 58).Masked(ir.ICMPv6Type, 0, 0x80), Pass{}),
		),
	},
	{
		Name: "key.ct_state", What: "the state of the connection", Since: "5.12", Needs: CapFlower, Cost: costCT, Fix: fixKernel,
		filters: trials(on(ProtocolIPv4, ir.Match{}.Masked(ir.CTState, stateTrk|stateEst|stateRpl, stateTrk|stateEst|stateRpl|stateInv), Pass{})),
	},
	{
		Name: "key.ct_zone", What: "the connection's zone", Since: "5.3", Needs: "key.ct_state", Cost: costCT, Fix: fixCT,
		filters: trials(on(ProtocolIPv4, established.Eq(ir.CTZone, 7), Pass{})),
	},
	{
		Name: "key.ct_mark", What: "the connection's mark, with mask", Since: "5.3", Needs: "key.ct_state", Cost: costCT, Fix: fixCT,
		filters: trials(on(ProtocolIPv4, established.Masked(ir.CTMark, 0, 1), Pass{})),
	},
	{
		Name: "key.ct_label", What: "the connection's labels, with mask", Since: "5.3", Needs: "key.ct_state", Cost: costCT, Fix: fixCT,
		filters: trials(on(ProtocolIPv4, established.Masked(ir.CTLabel, 0, 1), Pass{})),
	},
	{
		Name: "key.tunnel", What: "the tunnel that a packet came through: addresses, port, VNI", Since: "4.10", Needs: CapFlower, Cost: costFrom, Fix: fixKernel,
		filters: trials(tunnelled(ProtocolIPv4, fromTunnel)),
	},
	{
		Name: "key.geneve_opts", What: "Geneve options", Since: "4.19", Needs: "key.tunnel", Cost: costFrom, Fix: fixKernel,
		filters: trials(tunnelled(ProtocolIPv4, fromTunnel.Masked(ir.TunMetadata0, 0x00010002, 0x7fffffff))),
	},
	{
		Name: CapCT, What: "a look at the connection tracker", Since: "5.3", Needs: CapChains, Cost: costCT, Fix: fixCT,
		filters: func(t trial) []Filter {
			return []Filter{on(ProtocolIPv4, nil, CT{Zone: 7}, Goto{t.another})(t)}
		},
	},
	{
		Name: "ct.clear", What: "to forget the connection", Since: "5.3", Needs: CapFlower, Vital: true, Cost: costNothing, Fix: fixCT,
		filters: trials(on(ProtocolAll, nil, CT{Clear: true}, Pass{})),
	},
	{
		Name: "redirect", What: "to send a packet to a device", Since: "4.2", Needs: CapFlower, Vital: true, Cost: costNothing,
		Fix: "Use a kernel with CONFIG_NET_ACT_MIRRED, and its module act_mirred.",
		filters: func(t trial) []Filter {
			return []Filter{on(ProtocolAll, nil, Mirred{Ifindex: t.egress})(t)}
		},
	},
	{
		Name: "edit.eth", What: "to write Ethernet addresses", Since: "4.11", Needs: CapFlower, Cost: costRoute, Fix: fixPedit,
		filters: trials(on(ProtocolIPv4, nil, Pedit{newMACs}, Drop{})),
	},
	{
		Name: "edit.ip", What: "to write IPv4 addresses and ports, and TTL less one, with checksums", Since: "4.11", Needs: CapFlower, Cost: costRoute,
		Fix: "Use a kernel with CONFIG_NET_ACT_PEDIT and CONFIG_NET_ACT_CSUM, and its modules act_pedit and act_csum.",
		filters: trials(on(ProtocolIPv4, ipv4TCP, CT{Clear: true}, Pedit{[]Edit{
			{Field: ir.IPDst, Value: ir.U64(0x0a000001), Mask: ir.Ones(32)},
			lessTTL,
			{Field: ir.TCPDst, Value: ir.U64(80), Mask: ir.Ones(16)},
		}}, CSum{IPv4: true, TCP: true}, Drop{})),
	},
	{
		Name: "edit.ip6", What: "to write IPv6 addresses, and hop limit less one, with checksums", Since: "4.11", Needs: CapFlower, Cost: costRoute, Fix: fixPedit,
		filters: trials(on(ProtocolIPv6, ir.Match{}.Eq(ir.IPProto, 17), CT{Clear: true}, Pedit{[]Edit{
			lessTTL, {Field: ir.IPv6Dst, Value: ir.U128{Hi: 0xfd00 << 48, Lo: 1}, Mask: ir.Ones(128)},
		}}, CSum{UDP: true}, Drop{})),
	},
	{
		Name: "tunnel_key.set", What: "to send through a Geneve tunnel, with options", Since: "4.19", Needs: CapFlower, Cost: costTo, Fix: fixTunnel,
		filters: trials(on(ProtocolIPv4, nil, intoTunnel, Drop{}), on(ProtocolIPv4, nil, intoTunnel6, Drop{})),
	},
	{
		Name: CapNoFrag, What: "to set DF on the outer packet", Since: "6.3", Needs: "tunnel_key.set",
		Cost: "Outer packets have no DF bit, where Open vSwitch sends it: packets larger than the way allows arrive in fragments.", Fix: fixKernel,
		filters: func(t trial) []Filter {
			set := intoTunnel
			set.NoFrag = true
			return []Filter{on(ProtocolIPv4, nil, set, Drop{})(t)}
		},
	},
	{
		Name: "tunnel_key.unset", What: "to leave the tunnel", Since: "4.9", Needs: CapFlower, Cost: costFrom, Fix: fixTunnel,
		filters: trials(on(ProtocolIPv4, nil, TunnelUnset{}, Drop{})),
	},
	{
		Name: "skbedit", What: "to set a packet's mark", Since: "4.2", Needs: CapFlower, Cost: "Nothing yet.",
		Fix:     "Use a kernel with CONFIG_NET_ACT_SKBEDIT, and its module act_skbedit.",
		filters: trials(on(ProtocolAll, nil, SkbEdit{Mark: 5, MarkMask: 0xff}, Drop{})),
	},
	{
		Name: CapOpenvswitch, What: "the kernel datapath of Open vSwitch", Since: "3.3", Vital: true, Cost: costNothing,
		Fix: "Use a kernel with CONFIG_OPENVSWITCH and CONFIG_OPENVSWITCH_GENEVE, and its modules openvswitch and geneve.",
	},
	{
		Name: CapResume, What: "to go on in the chain where hardware has stopped (NET_TC_SKB_EXT)", Since: "5.4",
		Cost: "No device of mlx5 can offload connections, and since Linux 6.12 nothing at all. Filters in software are not concerned.",
		Fix:  "Use a kernel with CONFIG_NET_TC_SKB_EXT, as those of Ubuntu and RHEL are; Debian's are not.",
	},
}

// DeviceCapabilities are those of one device that filters are to be offloaded to.
var DeviceCapabilities = []Capability{
	{
		Name: CapSwitch, What: "a port of an embedded switch (phys_switch_id)", Cost: "There are no filters for packets from the device, unless tc_software is set.",
		Fix: "Use the representor of a function of a NIC in switchdev mode: devlink dev eswitch set pci/... mode switchdev.",
	},
	{
		Name: CapFeature, What: "the feature hw-tc-offload is on", Cost: "The hardware gets no filters.", Fix: "ethtool -K DEVICE hw-tc-offload on",
	},
	{
		Name: CapDrop, What: "the hardware drops packets", Cost: "The hardware gets no filters.", Fix: "Look at what the driver says, and at the NIC's mode and firmware.",
		filters: trials(hardware(Drop{})),
	},
	{
		Name: CapGoto, What: "the hardware has chains", Needs: CapDrop, Cost: "The hardware gets no filters: all of ours are in chains.",
		Fix: "Use a NIC, or firmware, that has them: ConnectX-5 or later in switchdev mode.",
		filters: func(t trial) []Filter {
			f, end := hardware(Goto{t.another})(t), hardware(Drop{})(t)
			end.Chain = t.another
			return []Filter{end, f}
		},
	},
	{
		Name: CapRedirect, What: "the hardware sends from one port of its switch to another", Needs: CapDrop, Cost: "The hardware only drops.",
		Fix:     "Look at what the driver says.",
		filters: func(t trial) []Filter { return []Filter{hardware(Mirred{Ifindex: t.egress})(t)} },
	},
	{
		Name: "device.edit", What: "the hardware routes: Ethernet addresses, TTL less one", Needs: CapRedirect, Cost: "Routed packets go through software.",
		Fix: "Look at what the driver says.",
		filters: func(t trial) []Filter {
			edits := append(slices.Clone(newMACs), lessTTL)
			return []Filter{hardware(Pedit{edits}, CSum{IPv4: true}, Mirred{Ifindex: t.egress})(t)}
		},
	},
	{
		Name: "device.ct", What: "the hardware asks its connection tracker", Needs: CapGoto, Cost: "Packets of connections go through software, which is nearly everything.",
		Fix: "Use a kernel with CONFIG_NET_TC_SKB_EXT, and for mlx5 with CONFIG_MLX5_TC_CT.",
		filters: func(t trial) []Filter {
			end, f := hardware(Drop{})(t), hardware(CT{Zone: 7}, Goto{t.another})(t)
			end.Chain = t.another
			end.Match, _ = end.Match.With(ir.CTState, ir.U64(stateTrk|stateEst), ir.U64(stateTrk|stateEst))
			return []Filter{end, f}
		},
	},
}

// What the filters of trials are made of.
var (
	ipv4TCP     = ir.Match{}.Eq(ir.IPProto, 6)
	established = ir.Match{}.Masked(ir.CTState, stateTrk|stateEst, stateTrk|stateEst)
	fromTunnel  = ir.Match{}.Eq(ir.TunSrc, 0xac120002).Eq(ir.TunDst, 0xac120003).Eq(ir.TunID, 3)

	newMACs = []Edit{
		{Field: ir.EthDst, Value: ir.U64(0x020000000001), Mask: ir.Ones(48)},
		{Field: ir.EthSrc, Value: ir.U64(0x020000000002), Mask: ir.Ones(48)},
	}
	lessTTL = Edit{Field: ir.IPTTL, Value: ir.U64(0xff), Mask: ir.Ones(8), Add: true}

	intoTunnel = TunnelSet{
		ID: 3, Src: netip.MustParseAddr("172.18.0.2"), Dst: netip.MustParseAddr("172.18.0.3"), DstPort: 6081, TTL: 64,
		Options: []GeneveOption{{OptionClass, OptionType, "\x00\x01\x00\x02"}},
	}
	intoTunnel6 = TunnelSet{
		ID: 3, Src: netip.MustParseAddr("fd00::2"), Dst: netip.MustParseAddr("fd00::3"), DstPort: 6081, TTL: 64, Options: intoTunnel.Options,
	}
)

// on returns a filter of a trial.
func on(protocol uint16, m ir.Match, actions ...Action) func(trial) Filter {
	return func(t trial) Filter {
		return Filter{Chain: t.chain, Pref: t.pref, Handle: 1, Protocol: protocol, Match: m, Actions: actions}
	}
}

// trials gives each filter a pref.
func trials(fs ...func(trial) Filter) func(trial) []Filter {
	return func(t trial) []Filter {
		all := make([]Filter, len(fs))
		for i, f := range fs {
			all[i] = f(t)
			t.pref++
		}
		return all
	}
}

func tunnelled(protocol uint16, m ir.Match) func(trial) Filter {
	return func(t trial) Filter {
		f := on(protocol, m, Pass{})(t)
		f.EncDstPort = 6081
		return f
	}
}

// hardware returns a filter for the hardware alone, of packets that nobody sends.
func hardware(actions ...Action) func(trial) Filter {
	return func(t trial) Filter {
		f := on(ProtocolIPv4, ir.Match{}.Eq(ir.EthDst, 0x020f1d000001).Eq(ir.EthSrc, 0x020f1d000002), actions...)(t)
		f.Flags = SkipSW | Verbose
		return f
	}
}

func with(m ir.Match, field ir.Field, value, mask ir.U128) ir.Match {
	m, ok := m.With(field, value, mask)
	if !ok {
		panic("tc: a trial contradicts itself")
	}
	return m
}

// An Answer says whether a capability is there.
type Answer uint8

// The answers.
const (
	Unknown Answer = iota // it could not be found out
	Yes
	No
)

// String returns the answer for people.
func (a Answer) String() string { return [...]string{"unknown", "ok", "missing"}[a] }

// A Finding is what has been found out about a capability.
type Finding struct {
	*Capability
	Answer Answer
	// Words say why, unless it is there: those of the kernel or the driver if it has any.
	Words string
}

// Caps is what the kernel can do.
type Caps struct {
	Release  string // of the kernel, as uname -r has it
	Findings []Finding
}

// DeviceCaps is what a device can do.
type DeviceCaps struct {
	Name, Driver string // the driver is empty if there is no hardware
	Findings     []Finding
}

// Has reports whether a capability has been found.
func (c *Caps) Has(name string) bool { return answer(c.Findings, name) == Yes }

// Missing returns what is known to be missing, without what is missing for want of something else.
func (c *Caps) Missing() []Finding {
	var all []Finding
	for _, f := range c.Findings {
		if f.Answer == No && answer(c.Findings, f.Needs) != No {
			all = append(all, f)
		}
	}
	return all
}

// Obstacle says why there can be no filters at all, nothing if there can. What is unknown is no obstacle: the kernel will say.
func (c *Caps) Obstacle() string {
	for _, f := range c.Missing() {
		if f.Vital {
			return "the kernel lacks " + f.Name + " (" + f.What + "): " + f.Words
		}
	}
	return ""
}

// answer finds the answer about a capability; Unknown if nobody has asked.
func answer(fs []Finding, name string) Answer {
	for _, f := range fs {
		if f.Name == name {
			return f.Answer
		}
	}
	return Unknown
}

// configValue returns what the configuration of a kernel, in the form of .config, says about an option: "y", "m", or "n"; nothing
// if it is no configuration.
func configValue(text, option string) string {
	if !strings.Contains(text, "CONFIG_NET=") {
		return ""
	}
	for l := range strings.Lines(text) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(l), option+"="); ok {
			return value
		}
	}
	return "n"
}
