package logical

import (
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Level is the level of measurement of a symbol: which comparisons make sense for it.
type Level uint8

// The levels, lowest first.
const (
	Nominal Level = iota // equality only, and only of the whole: OpenFlow cannot mask the field, or it is a string
	Boolean              // a predicate that may be negated
	Ordinal              // all comparisons, masks and parts
)

var levelText = [...]string{Nominal: "nominal", Boolean: "Boolean", Ordinal: "ordinal"}

// String returns l as error messages spell it.
func (l Level) String() string { return levelText[l] }

// Scope is a set of places in which a symbol may be written.
type Scope uint8

// The places.
const (
	WriteAnywhere Scope = 1 << iota // by the actions of a flow
	WriteCTCommit                   // inside ct_commit { ... }
)

// OVNField is a field that OpenFlow does not have, which only some actions can write.
type OVNField uint8

// The OVN fields. The zero value is none.
const (
	_ OVNField = iota
	ICMP4FragMTU
	ICMP6FragMTU
)

// Symbol is a name of the expression language: a field, a part of a field, or a predicate.
type Symbol struct {
	Name  string
	Width int // bits; 0 for a string, the name of a logical port

	// Field is the field behind the symbol, from bit Lo; 0 for a predicate and an OVN field.
	Field ir.Field
	Lo    int
	// Parent is the field of which the symbol is a part, nil if it is none.
	Parent *Symbol

	OVNField  OVNField
	Predicate string // the expression for which the symbol stands
	Prereqs   string // the condition under which packets have the field

	Level            Level
	MustCrossProduct bool // never a dimension of a conjunctive match
	Writable         Scope

	prereqs   *node // Prereqs, annotated
	exists    *node // Prereqs, simplified
	predicate *node // Predicate, annotated
}

// SymbolTable is a set of symbols. It does not change once it is made.
type SymbolTable struct{ symbols map[string]*Symbol }

// Lookup returns the symbol of that name, or nil.
func (t *SymbolTable) Lookup(name string) *Symbol { return t.symbols[name] }

var ovnSymbols = newOVNSymbols()

// Symbols returns the symbols of OVN 23.03, as in ovn-sb(5), Logical_Flow, match.
func Symbols() *SymbolTable { return ovnSymbols }

// add adds s. Symbols to which s refers must have been added before, so no expansion is recursive.
func (t *SymbolTable) add(s *Symbol) *Symbol {
	if t.symbols[s.Name] != nil {
		panic(fmt.Sprintf("logical: symbol %s defined twice", s.Name))
	}
	if s.Prereqs != "" {
		work := budget(maxNodes)
		_, s.prereqs = t.mustExpand(s.Prereqs)
		s.exists = simplify(s.prereqs, &work)
	}
	t.symbols[s.Name] = s
	return s
}

// The fields that OpenFlow matches as a whole only, and those that it does not write, as in ovs-fields(7).
var (
	exactFields = []ir.Field{
		ir.EthType, ir.IPProto, ir.IPDSCP, ir.IPECN, ir.IPTTL, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code,
		ir.ARPOp,
	}
	readOnlyFields = []ir.Field{ir.CTState, ir.EthType, ir.IPProto, ir.IPFrag, ir.TCPFlags}
)

// field adds a field of OpenFlow.
func (t *SymbolTable) field(name string, f ir.Field, prereqs string) *Symbol {
	s := &Symbol{Name: name, Width: f.Bits(), Field: f, Prereqs: prereqs, Level: Ordinal, Writable: WriteAnywhere}
	if slices.Contains(exactFields, f) {
		s.Level = Nominal
	}
	switch {
	case slices.Contains(readOnlyFields, f):
		s.Writable = 0
	case f == ir.CTMark || f == ir.CTLabel:
		s.Writable = WriteCTCommit
	}
	return t.add(s)
}

// crossField adds a field that never becomes a dimension of a conjunctive match.
func (t *SymbolTable) crossField(name string, f ir.Field, prereqs string) {
	t.field(name, f, prereqs).MustCrossProduct = true
}

// str adds a field whose values are names of logical ports.
func (t *SymbolTable) str(name string, f ir.Field) {
	t.add(&Symbol{Name: name, Field: f, Level: Nominal, Writable: WriteAnywhere})
}

// ovnField adds a field that OpenFlow does not have.
func (t *SymbolTable) ovnField(name string, f OVNField, width int) {
	t.add(&Symbol{Name: name, Width: width, OVNField: f, Level: Nominal, Writable: WriteAnywhere | WriteCTCommit})
}

// part adds a name for bits of the field parent, from bit lo.
func (t *SymbolTable) part(name, parent string, lo, width int, prereqs string) {
	p := t.symbols[parent]
	t.add(&Symbol{
		Name: name, Width: width, Field: p.Field, Lo: lo, Parent: p, Prereqs: prereqs,
		Level: p.Level, Writable: p.Writable,
	})
}

// pred adds a name for an expression.
func (t *SymbolTable) pred(name, expansion string) {
	s := t.add(&Symbol{Name: name, Width: 1, Predicate: expansion})
	s.Level, s.predicate = t.mustExpand(expansion)
}

func newOVNSymbols() *SymbolTable {
	t := &SymbolTable{symbols: make(map[string]*Symbol, 160)}

	t.str("inport", ir.Reg14)
	t.str("outport", ir.Reg15)

	// The registers overlap, so the narrow ones are parts of the wide ones.
	for i := range 2 {
		t.field(fmt.Sprintf("xxreg%d", i), ir.XXReg0+ir.Field(i), "")
	}
	t.field("xreg4", ir.XReg4, "")
	for i := range 4 {
		t.part(fmt.Sprintf("xreg%d", i), fmt.Sprintf("xxreg%d", i/2), 64*(1-i%2), 64, "")
	}
	for i := range 8 {
		t.part(fmt.Sprintf("reg%d", i), fmt.Sprintf("xxreg%d", i/4), 32*(3-i%4), 32, "")
	}
	t.part("reg8", "xreg4", 32, 32, "")
	t.part("reg9", "xreg4", 0, 32, "")

	t.field("flags", ir.Reg10, "")
	t.part("flags.loopback", "flags", 0, 1, "")
	t.part("flags.force_snat_for_dnat", "flags", 2, 1, "")
	t.part("flags.force_snat_for_lb", "flags", 3, 1, "")
	t.part("flags.skip_snat_for_lb", "flags", 9, 1, "")
	t.part("flags.use_snat_zone", "flags", 11, 1, "")

	t.field("ct_mark", ir.CTMark, "")
	t.part("ct_mark.blocked", "ct_mark", 0, 1, "")
	t.part("ct_mark.natted", "ct_mark", 1, 1, "")
	t.part("ct_mark.skip_snat", "ct_mark", 2, 1, "")
	t.part("ct_mark.force_snat", "ct_mark", 3, 1, "")
	t.part("ct_mark.ecmp_reply_port", "ct_mark", 16, 16, "")

	t.field("ct_label", ir.CTLabel, "")
	t.part("ct_label.blocked", "ct_label", 0, 1, "")
	t.part("ct_label.natted", "ct_label", 1, 1, "")
	t.part("ct_label.skip_snat", "ct_label", 2, 1, "")
	t.part("ct_label.force_snat", "ct_label", 3, 1, "")
	t.part("ct_label.ecmp_reply_eth", "ct_label", 32, 48, "")
	t.part("ct_label.ecmp_reply_port", "ct_label", 80, 16, "")
	t.part("ct_label.label", "ct_label", 96, 32, "")

	t.field("ct_state", ir.CTState, "")
	t.part("ct.trk", "ct_state", 5, 1, "")
	for i, name := range []string{"new", "est", "rel", "rpl", "inv", "", "snat", "dnat"} {
		if name != "" {
			t.part("ct."+name, "ct_state", i, 1, "ct.trk")
		}
	}

	t.field("eth.src", ir.EthSrc, "")
	t.field("eth.dst", ir.EthDst, "")
	t.crossField("eth.type", ir.EthType, "")
	t.pred("eth.bcast", "eth.dst == ff:ff:ff:ff:ff:ff")
	t.part("eth.mcast", "eth.dst", 40, 1, "")
	t.pred("eth.mcastv6", "eth.dst[32..47] == 0x3333")

	t.field("vlan.tci", ir.VLANTCI, "")
	t.pred("vlan.present", "vlan.tci[12]")
	t.part("vlan.pcp", "vlan.tci", 13, 3, "vlan.present")
	t.part("vlan.vid", "vlan.tci", 0, 12, "vlan.present")

	t.pred("ip4", "eth.type == 0x800")
	t.pred("ip6", "eth.type == 0x86dd")
	t.pred("ip", "ip4 || ip6")
	t.crossField("ip.proto", ir.IPProto, "ip")
	t.field("ip.dscp", ir.IPDSCP, "ip")
	t.field("ip.ecn", ir.IPECN, "ip")
	t.field("ip.ttl", ir.IPTTL, "ip")
	t.field("ip.frag", ir.IPFrag, "ip")
	t.pred("ip.is_frag", "ip.frag[0]")
	t.pred("ip.later_frag", "ip.frag[1]")
	t.pred("ip.first_frag", "ip.is_frag && !ip.later_frag")

	t.field("ip4.src", ir.IPSrc, "ip4")
	t.field("ip4.dst", ir.IPDst, "ip4")
	t.pred("ip4.src_mcast", "ip4.src[28..31] == 0xe")
	t.pred("ip4.mcast", "eth.mcast && ip4.dst[28..31] == 0xe")
	t.pred("icmp4", "ip4 && ip.proto == 1")
	t.field("icmp4.type", ir.ICMPType, "icmp4")
	t.field("icmp4.code", ir.ICMPCode, "icmp4")
	t.pred("igmp", "ip4 && ip.proto == 2")

	t.field("ip6.src", ir.IPv6Src, "ip6")
	t.field("ip6.dst", ir.IPv6Dst, "ip6")
	t.field("ip6.label", ir.IPv6Label, "ip6")
	// The well-known multicast addresses of RFC 4291, section 2.7.1.
	t.pred("ip6.mcast_rsvd", "ip6.dst[116..127] == 0xff0 && ip6.dst[0..111] == 0x0")
	t.pred("ip6.mcast_all_nodes", "ip6.dst == ff01::1 || ip6.dst == ff02::1")
	t.pred("ip6.mcast_all_rtrs", "ip6.dst == ff01::2 || ip6.dst == ff02::2 || ip6.dst == ff05::2")
	t.pred("ip6.mcast_sol_node", "ip6.dst == ff02::1:ff00:0000/104")
	t.pred("ip6.mcast_flood",
		"eth.mcastv6 && (ip6.mcast_rsvd || ip6.mcast_all_nodes || ip6.mcast_all_rtrs || ip6.mcast_sol_node)")
	t.pred("ip6.mcast", "eth.mcastv6 && ip6.dst[120..127] == 0xff")
	t.pred("icmp6", "ip6 && ip.proto == 58")
	t.crossField("icmp6.type", ir.ICMPv6Type, "icmp6")
	t.crossField("icmp6.code", ir.ICMPv6Code, "icmp6")
	t.pred("icmp", "icmp4 || icmp6")

	// RARP packets are laid out as ARP packets and have the same fields.
	t.pred("arp", "eth.type == 0x806")
	t.pred("rarp", "eth.type == 0x8035")
	for _, p := range []string{"arp", "rarp"} {
		t.field(p+".op", ir.ARPOp, p)
		t.field(p+".spa", ir.ARPSPA, p)
		t.field(p+".sha", ir.ARPSHA, p)
		t.field(p+".tpa", ir.ARPTPA, p)
		t.field(p+".tha", ir.ARPTHA, p)
	}

	t.pred("nd", "icmp6.type == {135, 136} && icmp6.code == 0 && ip.ttl == 255")
	t.pred("nd_ns", "icmp6.type == 135 && icmp6.code == 0 && ip.ttl == 255")
	t.pred("nd_na", "icmp6.type == 136 && icmp6.code == 0 && ip.ttl == 255")
	t.pred("nd_rs", "icmp6.type == 133 && icmp6.code == 0 && ip.ttl == 255")
	t.pred("nd_ra", "icmp6.type == 134 && icmp6.code == 0 && ip.ttl == 255")
	t.field("nd.target", ir.NDTarget, "nd")
	t.field("nd.sll", ir.NDSLL, "nd_ns")
	t.field("nd.tll", ir.NDTLL, "nd_na")
	// MLDv1 comes from link-local addresses (RFC 2710), MLDv2 goes to ff02::16 (RFC 3810, 5.2.14).
	t.pred("mldv1", "ip6.src == fe80::/10 && icmp6.type == {130, 131, 132}")
	t.pred("mldv2", "ip6.dst == ff02::16 && icmp6.type == 143")

	t.pred("tcp", "ip.proto == 6")
	t.field("tcp.src", ir.TCPSrc, "tcp")
	t.field("tcp.dst", ir.TCPDst, "tcp")
	t.field("tcp.flags", ir.TCPFlags, "tcp")
	t.pred("udp", "ip.proto == 17")
	t.field("udp.src", ir.UDPSrc, "udp")
	t.field("udp.dst", ir.UDPDst, "udp")
	t.pred("sctp", "ip.proto == 132")
	t.field("sctp.src", ir.SCTPSrc, "sctp")
	t.field("sctp.dst", ir.SCTPDst, "sctp")

	t.field("pkt.mark", ir.PktMark, "")

	t.ovnField("icmp4.frag_mtu", ICMP4FragMTU, 16)
	t.ovnField("icmp6.frag_mtu", ICMP6FragMTU, 32)
	return t
}
