package tc

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Attributes of flower, TCA_FLOWER_*, linux/pkt_cls.h.
const (
	flowerIndev      = 2
	flowerAct        = 3
	flowerEthType    = 8
	flowerFlags      = 22
	flowerVLANID     = 23
	flowerVLANPrio   = 24
	flowerVLANType   = 25
	flowerEncDstPort = 45
	flowerEncOpts    = 84
	flowerInHWCount  = 86
	flowerNumVLANs   = 102
)

// noMask is the mask attribute of a key that has none.
const noMask = 0

// A key says how flower is told of a field: its attribute, that of its mask, and their contents.
type key struct {
	name       string // as tc(8) has it
	field      ir.Field
	attr, mask uint16 // mask is noMask if the value is always exact
	size       int    // bytes
	host       bool   // in the byte order of the host

	// short keys come without mask if they are exact, since tc sends them so.
	short bool

	// toWire and toIR convert the value and the mask of a term, which are the same on both sides if they are nil. They report
	// false if the other side has no word for it.
	toWire func(ir.Term) (value, mask ir.U128, ok bool)
	toIR   func(value, mask ir.U128) (ir.Term, bool)
}

// keys are in the order in which they are sent. A key whose attribute is that of the one before is another part of its value.
// VLANTCI, EthType and the tunnel metadata are not among them: they are spread over several attributes (see vlanKeys and
// appendOption).
var keys = []key{
	{name: "dst_mac", field: ir.EthDst, attr: 4, mask: 5, size: 6},
	{name: "src_mac", field: ir.EthSrc, attr: 6, mask: 7, size: 6},
	{name: "ip_proto", field: ir.IPProto, attr: 9, mask: noMask, size: 1},
	{name: "ip_tos", field: ir.IPDSCP, attr: 73, mask: 74, size: 1, toWire: shiftUp, toIR: shiftDown},
	{name: "ip_tos", field: ir.IPECN, attr: 73, mask: 74, size: 1, toIR: lowBits},
	{name: "ip_ttl", field: ir.IPTTL, attr: 75, mask: 76, size: 1},
	{name: "dst_ip", field: ir.IPDst, attr: 12, mask: 13, size: 4},
	{name: "src_ip", field: ir.IPSrc, attr: 10, mask: 11, size: 4},
	{name: "dst_ip", field: ir.IPv6Dst, attr: 16, mask: 17, size: 16},
	{name: "src_ip", field: ir.IPv6Src, attr: 14, mask: 15, size: 16},
	{name: "dst_port", field: ir.TCPDst, attr: 19, mask: 36, size: 2, short: true},
	{name: "src_port", field: ir.TCPSrc, attr: 18, mask: 35, size: 2, short: true},
	{name: "dst_port", field: ir.UDPDst, attr: 21, mask: 38, size: 2, short: true},
	{name: "src_port", field: ir.UDPSrc, attr: 20, mask: 37, size: 2, short: true},
	{name: "dst_port", field: ir.SCTPDst, attr: 42, mask: 40, size: 2, short: true},
	{name: "src_port", field: ir.SCTPSrc, attr: 41, mask: 39, size: 2, short: true},
	{name: "tcp_flags", field: ir.TCPFlags, attr: 71, mask: 72, size: 2},
	{name: "type", field: ir.ICMPType, attr: 51, mask: 52, size: 1},
	{name: "code", field: ir.ICMPCode, attr: 49, mask: 50, size: 1},
	{name: "type", field: ir.ICMPv6Type, attr: 55, mask: 56, size: 1},
	{name: "code", field: ir.ICMPv6Code, attr: 53, mask: 54, size: 1},
	{name: "arp_sip", field: ir.ARPSPA, attr: 57, mask: 58, size: 4},
	{name: "arp_tip", field: ir.ARPTPA, attr: 59, mask: 60, size: 4},
	{name: "arp_op", field: ir.ARPOp, attr: 61, mask: 62, size: 1, toWire: arpOpToWire, toIR: arpOpToIR},
	{name: "arp_sha", field: ir.ARPSHA, attr: 63, mask: 64, size: 6},
	{name: "arp_tha", field: ir.ARPTHA, attr: 65, mask: 66, size: 6},
	{name: "enc_dst_ip", field: ir.TunDst, attr: 29, mask: 30, size: 4},
	{name: "enc_src_ip", field: ir.TunSrc, attr: 27, mask: 28, size: 4},
	{name: "enc_dst_ip", field: ir.TunIPv6Dst, attr: 33, mask: 34, size: 16},
	{name: "enc_src_ip", field: ir.TunIPv6Src, attr: 31, mask: 32, size: 16},
	{name: "enc_key_id", field: ir.TunID, attr: 26, mask: noMask, size: 4},
	{name: "ct_state", field: ir.CTState, attr: 91, mask: 92, size: 2, host: true, toWire: ctStateToWire, toIR: ctStateToIR},
	{name: "ct_zone", field: ir.CTZone, attr: 93, mask: 94, size: 2, host: true},
	{name: "ct_mark", field: ir.CTMark, attr: 95, mask: 96, size: 4, host: true},
	{name: "ct_label", field: ir.CTLabel, attr: 97, mask: 98, size: 16, host: true},
}

// fragKey is sent after the actions, as tc does.
var fragKey = key{name: "ip_flags", field: ir.IPFrag, attr: 47, mask: 48, size: 4, toWire: fragToWire, toIR: fragToIR}

// keyOfAttr finds the keys, by attribute or mask, in the order of keys.
var keyOfAttr = func() map[uint16][]*key {
	m := map[uint16][]*key{}
	for i := range keys {
		m[keys[i].attr] = append(m[keys[i].attr], &keys[i])
	}
	m[fragKey.attr] = append(m[fragKey.attr], &fragKey)
	return m
}()

// attrOfMask finds the attribute to which a mask belongs.
var attrOfMask = func() map[uint16]uint16 {
	m := map[uint16]uint16{}
	for _, ks := range keyOfAttr {
		if ks[0].mask != noMask {
			m[ks[0].mask] = ks[0].attr
		}
	}
	return m
}()

var keyOfField = func() (t [256]*key) {
	for i := range keys {
		t[keys[i].field] = &keys[i]
	}
	t[ir.IPFrag] = &fragKey
	return t
}()

// wire returns the value and the mask of t as k sends them. It fails if flower cannot say t.
func (k *key) wire(t ir.Term) (value, mask ir.U128, err error) {
	if k.mask == noMask && t.Mask != t.Field.Ones() {
		return value, mask, fmt.Errorf("%s=%v/%v: flower matches it as a whole only", t.Field, t.Value, t.Mask)
	}
	value, mask = t.Value, t.Mask
	if k.toWire != nil {
		var ok bool
		if value, mask, ok = k.toWire(t); !ok {
			return value, mask, fmt.Errorf("%s=%v/%v: flower has no key for it", t.Field, t.Value, t.Mask)
		}
	}
	if k.mask == noMask {
		mask = ir.Ones(8 * k.size)
	}
	if value.BitLen() > 8*k.size {
		return value, mask, fmt.Errorf("%s=%v: flower has %d bits for it", t.Field, t.Value, 8*k.size)
	}
	return value, mask, nil
}

// term is the inverse of wire. It returns no term and true if this part of the value has no condition.
func (k *key) term(value, mask ir.U128) (ir.Term, bool) {
	value = value.And(mask)
	if k.toIR != nil {
		return k.toIR(value, mask)
	}
	if k.mask == noMask {
		mask = k.field.Ones()
	}
	if mask.BitLen() > k.field.Bits() {
		return ir.Term{}, false
	}
	return ir.Term{Field: k.field, Value: value, Mask: mask}, true
}

// The two parts of the TOS.

func shiftUp(t ir.Term) (value, mask ir.U128, ok bool) { return t.Value.Shl(2), t.Mask.Shl(2), true }

func shiftDown(value, mask ir.U128) (ir.Term, bool) {
	return ir.Term{Field: ir.IPDSCP, Value: value.Shr(2), Mask: mask.Shr(2)}, true
}

func lowBits(value, mask ir.U128) (ir.Term, bool) {
	return ir.Term{Field: ir.IPECN, Value: value.And(ir.Ones(2)), Mask: mask.And(ir.Ones(2))}, true
}

// Flower looks at the low byte of an ARP operation only, so the high byte must be required to be 0, and is not.
func arpOpToWire(t ir.Term) (value, mask ir.U128, ok bool) {
	const high = 0xff00
	ok = t.Mask.Lo&high == high && t.Value.Lo&high == 0
	return t.Value.And(ir.Ones(8)), t.Mask.And(ir.Ones(8)), ok
}

func arpOpToIR(value, mask ir.U128) (ir.Term, bool) {
	return ir.Term{Field: ir.ARPOp, Value: value, Mask: mask.Or(ir.U64(0xff00))}, true
}

// ctBits are Open vSwitch's bits of ct_state and flower's, TCA_FLOWER_KEY_CT_FLAGS_*, in the order in which tc prints them.
var ctBits = []struct {
	name      string
	ovs, wire uint64
}{
	{"trk", 1 << 5, 1 << 3},
	{"new", 1 << 0, 1 << 0},
	{"est", 1 << 1, 1 << 1},
	{"rel", 1 << 2, 1 << 2},
	{"inv", 1 << 4, 1 << 4},
	{"rpl", 1 << 3, 1 << 5},
}

func ctStateToWire(t ir.Term) (value, mask ir.U128, ok bool) {
	rest := t.Mask.Lo
	for _, b := range ctBits {
		rest &^= b.ovs
		if t.Mask.Lo&b.ovs != 0 {
			mask.Lo |= b.wire
		}
		if t.Value.Lo&b.ovs != 0 {
			value.Lo |= b.wire
		}
	}
	return value, mask, rest == 0
}

func ctStateToIR(value, mask ir.U128) (ir.Term, bool) {
	t := ir.Term{Field: ir.CTState}
	rest := mask.Lo
	for _, b := range ctBits {
		rest &^= b.wire
		if mask.Lo&b.wire != 0 {
			t.Mask.Lo |= b.ovs
		}
		if value.Lo&b.wire != 0 {
			t.Value.Lo |= b.ovs
		}
	}
	return t, rest == 0
}

// Open vSwitch says "any fragment" (1) and "not the first" (2), flower TCA_FLOWER_KEY_FLAGS_IS_FRAGMENT (1) and _FRAG_IS_FIRST
// (2). These are the conditions that both know.
var frags = []struct{ value, mask, wireValue, wireMask uint64 }{
	{0, 1, 0, 1}, // not a fragment
	{0, 3, 0, 3}, // likewise
	{1, 1, 1, 1}, // a fragment
	{1, 3, 3, 3}, // the first one
	{3, 3, 1, 3}, // a later one
}

func fragToWire(t ir.Term) (value, mask ir.U128, ok bool) {
	for _, f := range frags {
		if t.Value.Lo == f.value && t.Mask.Lo == f.mask {
			return ir.U64(f.wireValue), ir.U64(f.wireMask), true
		}
	}
	return value, mask, false
}

func fragToIR(value, mask ir.U128) (ir.Term, bool) {
	for _, f := range frags {
		if value == ir.U64(f.wireValue) && mask == ir.U64(f.wireMask) {
			return ir.Term{Field: ir.IPFrag, Value: ir.U64(f.value), Mask: ir.U64(f.mask)}, true
		}
	}
	return ir.Term{}, mask.IsZero()
}

// Parts of a VLAN TCI. The bit "present" is Open vSwitch's: it is 1 for a packet that has a tag.
const (
	vlanPresent   = 0x1000
	vlanIDMask    = 0x0fff
	vlanPrioMask  = 0xe000
	vlanPrioShift = 13
)

// vlanTag is what flower can say of a VLAN tag.
type vlanTag struct {
	none            bool // there is no tag at all
	hasID, hasPrio  bool
	id              uint16
	prio            uint8
	hasType, tagged bool
	typ             uint16 // what follows the tag
}

// vlanOf returns what f says about its packets' VLAN tag.
func vlanOf(f *Filter) (v vlanTag, err error) {
	v.tagged = f.Protocol == ProtocolVLAN || f.Protocol == ProtocolQinQ
	if t, ok := f.Match.Term(ir.EthType); ok {
		switch {
		case !v.tagged:
			return v, fmt.Errorf("eth_type=%v: Protocol says it", t.Value)
		case t.Mask != ir.EthType.Ones():
			return v, fmt.Errorf("eth_type=%v/%v: flower matches it as a whole only", t.Value, t.Mask)
		case t.Value.Lo == ProtocolVLAN || t.Value.Lo == ProtocolQinQ:
			return v, fmt.Errorf("eth_type=%v: a second VLAN tag is not supported", t.Value)
		}
		v.hasType, v.typ = true, uint16(t.Value.Lo)
	}
	t, ok := f.Match.Term(ir.VLANTCI)
	if !ok {
		return v, nil
	}
	value, mask := t.Value.Lo, t.Mask.Lo
	bad := fmt.Errorf("vlan_tci=%v/%v", t.Value, t.Mask)
	switch {
	case mask == vlanPresent && value == 0:
		if f.Protocol != ProtocolAll {
			return v, fmt.Errorf("%w: Protocol says whether there is a tag", bad)
		}
		v.none = true
		return v, nil
	case !v.tagged:
		return v, fmt.Errorf("%w: only filters for protocol 802.1q or 802.1ad can look into the tag", bad)
	case mask&vlanPresent == 0 || value&vlanPresent == 0:
		return v, fmt.Errorf("%w: flower matches tags that are there only", bad)
	}
	v.hasID, v.hasPrio = mask&vlanIDMask != 0, mask&vlanPrioMask != 0
	switch {
	case !v.hasID && !v.hasPrio:
		return v, fmt.Errorf("%w: Protocol says whether there is a tag", bad)
	case v.hasID && mask&vlanIDMask != vlanIDMask, v.hasPrio && mask&vlanPrioMask != vlanPrioMask:
		return v, fmt.Errorf("%w: flower matches the id and the priority as a whole only", bad)
	}
	v.id, v.prio = uint16(value&vlanIDMask), uint8(value&vlanPrioMask>>vlanPrioShift)
	return v, nil
}

// terms is the inverse of vlanOf.
func (v vlanTag) terms(m ir.Match) ir.Match {
	if v.hasType {
		m = m.Eq(ir.EthType, uint64(v.typ))
	}
	switch {
	case v.none:
		m = m.Masked(ir.VLANTCI, 0, vlanPresent)
	case v.hasID || v.hasPrio:
		value, mask := uint64(vlanPresent), uint64(vlanPresent)
		if v.hasID {
			value, mask = value|uint64(v.id&vlanIDMask), mask|vlanIDMask
		}
		if v.hasPrio {
			value, mask = value|uint64(v.prio&7)<<vlanPrioShift, mask|vlanPrioMask
		}
		m = m.Masked(ir.VLANTCI, value, mask)
	}
	return m
}

// etherType returns the EtherType of f's packets after VLAN tags; ProtocolAll if it is not known.
func (f *Filter) etherType() uint16 {
	if f.Protocol != ProtocolVLAN && f.Protocol != ProtocolQinQ {
		return f.Protocol
	}
	if t, ok := f.Match.Term(ir.EthType); ok && t.Mask == ir.EthType.Ones() {
		return uint16(t.Value.Lo)
	}
	return ProtocolAll
}

// exact returns the value of a field that f matches as a whole.
func (f *Filter) exact(field ir.Field) (uint64, bool) {
	t, ok := f.Match.Term(field)
	if !ok || t.Mask != field.Ones() {
		return 0, false
	}
	return t.Value.Lo, true
}
