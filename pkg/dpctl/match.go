package dpctl

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Match returns what f asks for of a packet, besides the port and the identifier of recirculation. unknown names what cannot be said with
// fields of package ir: a packet that satisfies the match need not be one of f's.
func (f *Flow) Match() (m ir.Match, unknown []string) {
	for _, a := range f.Attrs {
		if a.Name == "in_port" || a.Name == "recirc_id" || a.Name == "packet_type" && a.Text == "ns=0,id=0" { // all packets are of Ethernet
			continue
		}
		for _, member := range members(a.Text) {
			terms, err := a.terms(member)
			for _, t := range terms {
				next, ok := m.With(t.Field, t.Value, t.Mask)
				if !ok {
					err = fmt.Errorf("a contradiction")
					break
				}
				m = next
			}
			if err != nil {
				unknown = append(unknown, a.Name+"("+member+")")
			}
		}
	}
	return m, unknown
}

// terms returns the conditions that a member of a's text stands for.
func (a Attr) terms(member string) ([]ir.Term, error) {
	if key, value, ok := strings.Cut(member, "="); ok {
		return termsOf(a.Name+"."+key, value)
	}
	return termsOf(a.Name, member)
}

// A Step is an action of a megaflow, as far as it matters to which other one the packet meets next.
type Step struct {
	Text string
	Kind StepKind

	Zone   uint16    // with Track
	Recirc uint32    // with Recirculate
	Terms  []ir.Term // with Set
}

// A StepKind is what an action does.
type StepKind uint8

// The kinds. Other actions do not change what the next megaflow is asked for: they send a copy, have it sampled, or commit the connection.
const (
	Other       StepKind = iota
	Track                // the connection tracker is asked, in Zone
	Untrack              // the connection is forgotten
	Set                  // fields get values
	Recirculate          // the packet meets the megaflows again
	Unclear              // the packet is changed in a way that is not understood
)

// Steps returns the actions in order.
func (f *Flow) Steps() []Step {
	var steps []Step
	for _, text := range members(f.Actions) {
		s := Step{Text: text}
		name, rest, _ := strings.Cut(text, "(")
		inner := strings.TrimSuffix(rest, ")")
		switch name {
		case "ct":
			s.Kind = Track
			for _, m := range members(inner) {
				if m == "commit" { // what the packet has of the connection stays
					s.Kind = Other
					break
				}
				if zone, ok := strings.CutPrefix(m, "zone="); ok {
					n, err := strconv.ParseUint(zone, 0, 16)
					if s.Zone = uint16(n); err != nil {
						s.Kind = Unclear
					}
				}
				if strings.HasPrefix(m, "nat(") && strings.Contains(m, "=") {
					s.Kind = Unclear // it translates new connections
				}
			}
		case "ct_clear":
			s.Kind = Untrack
		case "recirc":
			n, err := strconv.ParseUint(inner, 0, 32)
			if s.Kind, s.Recirc = Recirculate, uint32(n); err != nil {
				s.Kind = Unclear
			}
		case "set":
			s.set(inner)
		case "push_vlan", "pop_vlan", "push_mpls", "pop_mpls", "push_eth", "pop_eth", "push_nsh", "pop_nsh", "add_mpls", "tnl_pop", "dec_ttl", "check_pkt_len":
			s.Kind = Unclear
		}
		steps = append(steps, s)
	}
	return steps
}

// set reads what is between the parentheses of set.
func (s *Step) set(inner string) {
	s.Kind = Set
	name, rest, ok := strings.Cut(inner, "(")
	a := Attr{name, strings.TrimSuffix(rest, ")")}
	if name == "tunnel" {
		return // of the packet that is sent, not of this one
	}
	for _, m := range members(a.Text) {
		terms, err := a.terms(m)
		if err != nil || !ok {
			s.Kind = Unclear
			return
		}
		s.Terms = append(s.Terms, terms...)
	}
}

// fieldsOf are the fields of package ir that members of attributes stand for, with the parser of their values.
var fieldsOf = map[string]struct {
	field ir.Field
	parse func(string) (ir.U128, error)
}{
	"skb_mark":    {ir.PktMark, number},
	"ct_zone":     {ir.CTZone, number},
	"ct_mark":     {ir.CTMark, number},
	"ct_label":    {ir.CTLabel, wide},
	"ct_state":    {ir.CTState, number},
	"eth.src":     {ir.EthSrc, mac},
	"eth.dst":     {ir.EthDst, mac},
	"eth_type":    {ir.EthType, number},
	"ipv4.src":    {ir.IPSrc, address},
	"ipv4.dst":    {ir.IPDst, address},
	"ipv4.proto":  {ir.IPProto, number},
	"ipv4.ttl":    {ir.IPTTL, number},
	"ipv6.src":    {ir.IPv6Src, address},
	"ipv6.dst":    {ir.IPv6Dst, address},
	"ipv6.label":  {ir.IPv6Label, number},
	"ipv6.proto":  {ir.IPProto, number},
	"ipv6.hlimit": {ir.IPTTL, number},
	"tcp.src":     {ir.TCPSrc, number},
	"tcp.dst":     {ir.TCPDst, number},
	"udp.src":     {ir.UDPSrc, number},
	"udp.dst":     {ir.UDPDst, number},
	"sctp.src":    {ir.SCTPSrc, number},
	"sctp.dst":    {ir.SCTPDst, number},
	"icmp.type":   {ir.ICMPType, number},
	"icmp.code":   {ir.ICMPCode, number},
	"icmpv6.type": {ir.ICMPv6Type, number},
	"icmpv6.code": {ir.ICMPv6Code, number},
	"arp.sip":     {ir.ARPSPA, address},
	"arp.tip":     {ir.ARPTPA, address},
	"arp.op":      {ir.ARPOp, number},
	"arp.sha":     {ir.ARPSHA, mac},
	"arp.tha":     {ir.ARPTHA, mac},
	"nd.target":   {ir.NDTarget, address},
	"nd.sll":      {ir.NDSLL, mac},
	"nd.tll":      {ir.NDTLL, mac},
	"ipv4.frag":   {ir.IPFrag, fragment},
	"ipv6.frag":   {ir.IPFrag, fragment},
	"ipv4.tos":    {0, number}, // ip_dscp and nw_ecn
	"ipv6.tclass": {0, number},
}

// termsOf returns the conditions that a member of an attribute stands for, none if its mask is 0.
func termsOf(name, text string) ([]ir.Term, error) {
	k, ok := fieldsOf[name]
	if !ok {
		return nil, fmt.Errorf("no field %s", name)
	}
	if name == "ct_state" && strings.ContainsAny(text, "+-") {
		return stateTerms(text)
	}
	value, mask, masked := strings.Cut(text, "/")
	v, err := k.parse(value)
	if err != nil {
		return nil, err
	}
	bits := 8 // of tos
	if k.field != 0 {
		bits = k.field.Bits()
	}
	m := ir.Ones(bits)
	if masked {
		if n, err := strconv.Atoi(mask); err == nil && k.field.Bits() == 128 && name != "ct_label" { // an IPv6 prefix
			m = m.AndNot(ir.Ones(128 - min(max(n, 0), 128)))
		} else if m, err = k.parse(mask); err != nil {
			return nil, err
		}
	}
	v = v.And(m)
	if k.field == 0 {
		return terms(ir.Term{Field: ir.IPDSCP, Value: v.Shr(2), Mask: m.Shr(2)}, ir.Term{Field: ir.IPECN, Value: v.And(ir.U64(3)), Mask: m.And(ir.U64(3))}), nil
	}
	return terms(ir.Term{Field: k.field, Value: v, Mask: m}), nil
}

// terms leaves out those that ask for nothing.
func terms(all ...ir.Term) (some []ir.Term) {
	for _, t := range all {
		if !t.Mask.IsZero() {
			some = append(some, t)
		}
	}
	return some
}

// stateBits are the bits of ct_state, ovs-fields(7).
var stateBits = map[string]uint64{
	"new": 0x01, "est": 0x02, "rel": 0x04, "rpl": 0x08, "inv": 0x10, "trk": 0x20, "snat": 0x40, "dnat": 0x80,
}

// stateTerms reads +trk+est-inv.
func stateTerms(text string) ([]ir.Term, error) {
	var value, mask uint64
	for text != "" {
		end := 1 + strings.IndexAny(text[1:], "+-")
		if end == 0 {
			end = len(text)
		}
		bit, ok := stateBits[text[1:end]]
		if !ok {
			return nil, fmt.Errorf("no flag %q", text[:end])
		}
		if mask |= bit; text[0] == '+' {
			value |= bit
		}
		text = text[end:]
	}
	return terms(ir.Term{Field: ir.CTState, Value: ir.U64(value), Mask: ir.U64(mask)}), nil
}

func number(s string) (ir.U128, error) {
	n, err := strconv.ParseUint(s, 0, 64)
	return ir.U64(n), err
}

// wide reads up to 128 bits in hexadecimal digits.
func wide(s string) (ir.U128, error) {
	digits, ok := strings.CutPrefix(s, "0x")
	if !ok || len(digits) <= 16 {
		return number(s)
	}
	hi, err := number("0x" + digits[:len(digits)-16])
	if err != nil {
		return hi, err
	}
	lo, err := number("0x" + digits[len(digits)-16:])
	return hi.Shl(64).Or(lo), err
}

func mac(s string) (ir.U128, error) {
	octets := strings.Split(s, ":")
	if len(octets) != 6 {
		return ir.U128{}, fmt.Errorf("no Ethernet address %q", s)
	}
	var a [6]byte
	for i, octet := range octets {
		n, err := strconv.ParseUint(octet, 16, 8)
		if err != nil {
			return ir.U128{}, fmt.Errorf("no Ethernet address %q", s)
		}
		a[i] = byte(n)
	}
	return ir.FromBytes(a[:]), nil
}

func address(s string) (ir.U128, error) {
	a, err := netip.ParseAddr(s)
	return ir.FromBytes(a.AsSlice()), err
}

// fragment reads frag=no, first or later, which ask for all bits of ip_frag.
func fragment(s string) (ir.U128, error) {
	switch s {
	case "no":
		return ir.U64(0), nil
	case "first":
		return ir.U64(1), nil
	case "later":
		return ir.U64(3), nil
	}
	return ir.U128{}, fmt.Errorf("no kind of fragment %q", s)
}
