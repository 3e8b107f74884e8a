package openflow

import (
	"encoding/hex"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"

	"github.com/offloadd/offloadd/pkg/ir"
)

// FormatFlow returns r as "ovs-ofctl -O OpenFlow15 dump-flows --no-stats --no-names" prints it, without the
// leading space.
func FormatFlow(r *ir.Rule) string {
	var b []byte
	if r.Cookie != 0 {
		b = fmt.Appendf(b, "cookie=%#x, ", r.Cookie)
	}
	if r.Table != 0 {
		b = fmt.Appendf(b, "table=%d, ", r.Table)
	}
	n := len(b)
	if r.Priority != defaultPriority {
		b = fmt.Appendf(b, "priority=%d,", r.Priority)
	}
	b = appendMatchText(b, r.Match)
	if len(b) > n {
		b[len(b)-1] = ' ' // was a comma
	}
	b = append(b, "actions="...)
	return string(appendActionsText(b, r.Actions))
}

// defaultPriority is not printed (OFP_DEFAULT_PRIORITY).
const defaultPriority = 0x8000

// FormatMatch returns m as ovs-ofctl prints it, "" if m is empty.
func FormatMatch(m ir.Match) string {
	b := appendMatchText(nil, m)
	if len(b) > 0 {
		b = b[:len(b)-1]
	}
	return string(b)
}

// FormatActions returns the actions as ovs-ofctl prints them, "drop" if there are none.
func FormatActions(actions []ir.Action) string { return string(appendActionsText(nil, actions)) }

// FormatGroup returns the group as "ovs-ofctl -O OpenFlow15 dump-groups --no-names" prints it, without the leading
// space.
func FormatGroup(id uint32, g *ir.SelectGroup) string {
	b := fmt.Appendf(nil, "group_id=%d,type=select", id)
	if g.Method != "" {
		b = fmt.Appendf(b, ",selection_method=%s", g.Method)
		if g.Param != 0 {
			b = fmt.Appendf(b, ",selection_method_param=%d", g.Param)
		}
	}
	fields := slices.Sorted(slices.Values(g.Fields))
	switch len(fields) {
	case 0:
	case 1:
		b = fmt.Appendf(b, ",fields=%v", fields[0])
	default:
		for i, f := range fields {
			if i == 0 {
				b = append(b, ",fields("...)
			} else {
				b = append(b, ',')
			}
			b = append(b, f.String()...)
		}
		b = append(b, ')')
	}
	for i := range g.Buckets {
		k := &g.Buckets[i]
		b = fmt.Appendf(b, ",bucket=bucket_id:%d,", i)
		if k.Weight != 1 {
			b = fmt.Appendf(b, "weight:%d,", k.Weight)
		}
		if k.WatchPort != 0 {
			b = append(b, "watch_port:"...)
			b = appendPort(b, k.WatchPort)
			b = append(b, ',')
		}
		b = append(b, "actions="...)
		b = appendActionsText(b, k.Actions)
	}
	return string(b)
}

// EtherTypes and IP protocols that have a name of their own.
const (
	etherTypeIPv4, etherTypeIPv6, etherTypeARP, etherTypeRARP = 0x0800, 0x86dd, 0x0806, 0x8035
	etherTypeMPLS, etherTypeMPLSMulticast                     = 0x8847, 0x8848

	protoICMP, protoTCP, protoUDP, protoICMPv6, protoSCTP = 1, 6, 17, 58, 132
)

// Words for an EtherType and a protocol together.
var (
	ipv4Names = map[uint64]string{protoICMP: "icmp", protoTCP: "tcp", protoUDP: "udp", protoSCTP: "sctp"}
	ipv6Names = map[uint64]string{protoICMPv6: "icmp6", protoTCP: "tcp6", protoUDP: "udp6", protoSCTP: "sctp6"}
)

// typeName returns the word that stands for the EtherType and protocol in m, or "". proto says that the word
// covers the protocol, too.
func typeName(m ir.Match) (name string, proto bool) {
	eth, ok := m.Term(ir.EthType)
	if !ok {
		return "", false
	}
	p, hasProto := m.Term(ir.IPProto)
	byProto := func(names map[uint64]string, other string) (string, bool) {
		if n, ok := names[p.Value.Lo]; ok && hasProto {
			return n, true
		}
		return other, false
	}
	switch eth.Value.Lo {
	case etherTypeIPv4:
		return byProto(ipv4Names, "ip")
	case etherTypeIPv6:
		return byProto(ipv6Names, "ipv6")
	case etherTypeARP:
		return "arp", false
	case etherTypeRARP:
		return "rarp", false
	case etherTypeMPLS:
		return "mpls", false
	case etherTypeMPLSMulticast:
		return "mplsm", false
	}
	return "", false
}

// matchOrder is the order in which match_format of lib/match.c prints fields. The word for the EtherType and
// protocol stands between ct_tp_dst and reg0.
var (
	beforeType = []ir.Field{
		ir.PktMark, ir.ConjID, ir.CTState, ir.CTZone, ir.CTMark, ir.CTLabel, ir.CTNWSrc, ir.CTIPv6Src, ir.CTNWDst,
		ir.CTIPv6Dst, ir.CTNWProto, ir.CTTPSrc, ir.CTTPDst,
	}
	afterType = func() []ir.Field {
		var fs []ir.Field
		for f := ir.Reg0; f <= ir.Reg15; f++ {
			fs = append(fs, f)
		}
		fs = append(fs, ir.TunID, ir.TunSrc, ir.TunDst, ir.TunIPv6Src, ir.TunIPv6Dst, ir.TunFlags)
		for n := range ir.Field(64) {
			fs = append(fs, ir.TunMetadata0+n)
		}
		return append(fs,
			ir.Metadata, ir.InPort, ir.VLANTCI, ir.EthSrc, ir.EthDst, ir.EthType, ir.IPv6Src, ir.IPv6Dst, ir.IPv6Label,
			ir.ARPSPA, ir.ARPTPA, ir.IPSrc, ir.IPDst, ir.IPProto, ir.ARPOp, ir.ARPSHA, ir.ARPTHA, ir.IPDSCP, ir.IPECN,
			ir.IPTTL, ir.IPFrag, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code, ir.NDTarget, ir.NDSLL,
			ir.NDTLL, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst, ir.TCPFlags,
		)
	}()
)

// matchNames are the names of fields in matches where they differ from those in actions.
var matchNames = map[ir.Field]string{
	ir.EthSrc: "dl_src", ir.EthDst: "dl_dst", ir.EthType: "dl_type", ir.IPSrc: "nw_src", ir.IPDst: "nw_dst",
	ir.IPDSCP: "nw_tos", ir.IPFrag: "nw_frag", ir.ICMPv6Type: "icmp_type", ir.ICMPv6Code: "icmp_code",
	ir.TCPSrc: "tp_src", ir.TCPDst: "tp_dst", ir.UDPSrc: "tp_src", ir.UDPDst: "tp_dst", ir.SCTPSrc: "tp_src",
	ir.SCTPDst: "tp_dst",
}

// appendMatchText appends each condition with a comma after it.
func appendMatchText(b []byte, m ir.Match) []byte {
	for _, f := range beforeType {
		b = appendTermText(b, m, f)
	}
	name, proto := typeName(m)
	if name != "" {
		b = append(append(b, name...), ',')
	}
	for _, f := range afterType {
		if f == ir.EthType && name != "" || f == ir.IPProto && proto {
			continue
		}
		b = appendTermText(b, m, f)
	}
	return b
}

func appendTermText(b []byte, m ir.Match, f ir.Field) []byte {
	t, ok := m.Term(f)
	if !ok {
		return b
	}
	if f == ir.VLANTCI {
		return appendVLANText(b, uint16(t.Value.Lo), uint16(t.Mask.Lo))
	}
	if n, ok := matchNames[f]; ok {
		b = append(b, n...)
	} else {
		b = append(b, f.String()...)
	}
	b = append(b, '=')
	whole := t.Mask == f.Ones()
	v, k := t.Value.Lo, t.Mask.Lo
	switch {
	case f == ir.EthType:
		b = fmt.Appendf(b, "0x%04x", v)
	case f == ir.IPDSCP:
		b = strconv.AppendUint(b, v<<2, 10)
	case f == ir.IPv6Label && whole:
		b = fmt.Appendf(b, "0x%05x", v)
	case f == ir.IPv6Label:
		b = fmt.Appendf(b, "0x%05x/0x%05x", v, k)
	case f == ir.CTState:
		b = appendFlags(b, ctStateNames, uint32(v), uint32(k), 0xff)
	case f == ir.TunFlags:
		b = appendFlags(b, tunFlagNames, uint32(v), uint32(k)&tunFlagOAM, tunFlagsAll)
	case (kindOf[f] == decimal || f == ir.CTZone) && whole:
		b = strconv.AppendUint(b, v, 10)
	case kindOf[f] == decimal || f == ir.CTZone:
		b = fmt.Appendf(b, "0x%x/0x%x", v, k)
	default:
		b = appendValue(b, f, t.Value, t.Mask)
	}
	return append(b, ',')
}

func appendVLANText(b []byte, tci, mask uint16) []byte {
	// What appendVLAN cannot encode is not printed either.
	if tci&vlanVIDPresent == 0 {
		mask &= vlanVIDPresent
	} else if mask>>vlanPCPShift != 0 {
		mask |= 7 << vlanPCPShift
	}
	const present, vidBits, pcpBits = 0x1000, 0x0fff, 0xe000
	vid, pcp := mask&vidBits, mask&pcpBits
	switch {
	case mask == 0:
		return b
	case mask&present != 0 && tci&present != 0 && (vid == 0 || vid == vidBits) && (vid != 0 || pcp != 0):
		if vid != 0 {
			b = fmt.Appendf(b, "dl_vlan=%d,", tci&vidBits)
		}
		if pcp != 0 {
			b = fmt.Appendf(b, "dl_vlan_pcp=%d,", tci>>vlanPCPShift)
		}
		return b
	case mask == 0xffff:
		return fmt.Appendf(b, "vlan_tci=0x%04x,", tci)
	default:
		return fmt.Appendf(b, "vlan_tci=0x%04x/0x%04x,", tci&mask, mask)
	}
}

// kind is how a value is written ("Formatting" in include/openvswitch/meta-flow.h).
type kind int

const (
	hexadecimal kind = iota
	decimal
	mac
	ipv4
	ipv6
	port
	frag
	ctState
	tcpFlags
	tunFlags
)

var kindOf = func() (t [256]kind) {
	for k, fs := range map[kind][]ir.Field{
		decimal: {
			ir.ConjID, ir.IPProto, ir.IPDSCP, ir.IPECN, ir.IPTTL, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code,
			ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst, ir.SCTPSrc, ir.SCTPDst, ir.ARPOp, ir.CTNWProto, ir.CTTPSrc,
			ir.CTTPDst,
		},
		mac:      {ir.EthSrc, ir.EthDst, ir.ARPSHA, ir.ARPTHA, ir.NDSLL, ir.NDTLL},
		ipv4:     {ir.IPSrc, ir.IPDst, ir.ARPSPA, ir.ARPTPA, ir.TunSrc, ir.TunDst, ir.CTNWSrc, ir.CTNWDst},
		ipv6:     {ir.IPv6Src, ir.IPv6Dst, ir.NDTarget, ir.TunIPv6Src, ir.TunIPv6Dst, ir.CTIPv6Src, ir.CTIPv6Dst},
		port:     {ir.InPort},
		frag:     {ir.IPFrag},
		ctState:  {ir.CTState},
		tcpFlags: {ir.TCPFlags},
		tunFlags: {ir.TunFlags},
	} {
		for _, f := range fs {
			t[f] = k
		}
	}
	return t
}()

// appendValue appends value/mask of f as mf_format of lib/meta-flow.c does; no mask if it is the whole field's.
func appendValue(b []byte, f ir.Field, value, mask ir.U128) []byte {
	whole := mask == f.Ones()
	if mask.IsZero() {
		return append(b, "ANY"...)
	}
	switch kindOf[f] {
	case decimal:
		b = strconv.AppendUint(b, value.Lo, 10)
	case mac:
		b = appendMAC(b, value)
		if !whole {
			b = append(b, '/')
			b = appendMAC(b, mask)
		}
		return b
	case ipv4, ipv6:
		return appendAddrMasked(b, value, mask, f.Bits())
	case port:
		if whole {
			return appendPort(b, uint32(value.Lo))
		}
		b = appendHex(b, value)
	case frag:
		return append(b, fragName(value.Lo, mask.Lo)...)
	case ctState:
		return appendFlags(b, ctStateNames, uint32(value.Lo), uint32(mask.Lo), 0xffff)
	case tcpFlags:
		return appendFlags(b, tcpFlagNames, uint32(value.Lo), uint32(mask.Lo), 0xfff)
	case tunFlags:
		return appendFlags(b, tunFlagNames, uint32(value.Lo), uint32(mask.Lo)&tunFlagOAM, tunFlagOAM)
	case hexadecimal:
		b = appendHex(b, value)
	}
	if !whole {
		b = append(b, '/')
		b = appendHex(b, mask)
	}
	return b
}

// appendHex appends v as C's %#x does: zero is "0".
func appendHex(b []byte, v ir.U128) []byte {
	if v.IsZero() {
		return append(b, '0')
	}
	return append(b, v.String()...)
}

func appendMAC(b []byte, v ir.U128) []byte {
	a := v.Bytes16()
	for i, x := range a[10:] {
		if i > 0 {
			b = append(b, ':')
		}
		b = hex.AppendEncode(b, []byte{x})
	}
	return b
}

// appendAddrMasked appends an address of 32 or 128 bits with its prefix length, or its mask if it is no prefix.
func appendAddrMasked(b []byte, value, mask ir.U128, size int) []byte {
	b = appendAddr(b, value, size)
	n := mask.OnesCount()
	switch {
	case n == size:
		return b
	case mask == ir.Ones(n).Shl(size-n):
		return fmt.Appendf(b, "/%d", n)
	default:
		b = append(b, '/')
		return appendAddr(b, mask, size)
	}
}

func appendAddr(b []byte, v ir.U128, size int) []byte {
	a := v.Bytes16()
	if size == 32 {
		return netip.AddrFrom4([4]byte(a[12:])).AppendTo(b)
	}
	if v.Hi == 0 && v.Lo>>32 == 0 && v.Lo>>16 != 0 {
		// inet_ntop(3) prints the IPv4-compatible addresses of RFC 4291 with dots.
		b = append(b, "::"...)
		return netip.AddrFrom4([4]byte(a[12:])).AppendTo(b)
	}
	return netip.AddrFrom16(a).AppendTo(b)
}

// portNames are those of the reserved ports, the last being 0xffff.
var portNames = []string{
	"UNSET", "IN_PORT", "TABLE", "NORMAL", "FLOOD", "ALL", "CONTROLLER", "LOCAL", "ANY",
}

const portController = 0xfffd

// portName returns the name of a reserved port, "" for others.
func portName(p uint32) string {
	if i := int(p) - (0x10000 - len(portNames)); i >= 0 && i < len(portNames) {
		return portNames[i]
	}
	return ""
}

func appendPort(b []byte, p uint32) []byte {
	p = portIR(p)
	if n := portName(p); n != "" {
		return append(b, n...)
	}
	return strconv.AppendUint(b, uint64(p), 10)
}

func fragName(value, mask uint64) string {
	const anyFrag, later = 1, 2
	switch mask & (anyFrag | later) {
	case anyFrag | later:
		return [...]string{"no", "first", "<error>", "later"}[value&3]
	case anyFrag:
		return [...]string{"no", "yes"}[value&1]
	default:
		return [...]string{"not_later", "later"}[value>>1&1]
	}
}

var (
	ctStateNames = []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"}
	tcpFlagNames = []string{
		"fin", "syn", "rst", "psh", "ack", "urg", "ece", "cwr", "ns", "[200]", "[400]", "[800]",
	}
	tunFlagNames = []string{"oam", "df", "csum", "key"}
)

// tunFlagsAll is the mask of the tunnel flags that a match may have inside Open vSwitch.
const tunFlagsAll = 0xf

// appendFlags appends flags by name, from the least significant bit, as "a|b" if all of them are given and "+a-b"
// if only those of mask are.
func appendFlags(b []byte, names []string, flags, mask, all uint32) []byte {
	name := func(bit int) string {
		if bit < len(names) {
			return names[bit]
		}
		return "[Unknown]"
	}
	switch {
	case mask&all == all:
		if flags == 0 {
			return append(b, '0')
		}
		sep := ""
		for ; flags != 0; flags &= flags - 1 {
			b = append(append(b, sep...), name(bits.TrailingZeros32(flags))...)
			sep = "|"
		}
		return b
	case mask == 0:
		return append(b, "0/0"...)
	}
	for ; mask != 0; mask &= mask - 1 {
		bit := bits.TrailingZeros32(mask)
		if flags>>bit&1 != 0 {
			b = append(b, '+')
		} else {
			b = append(b, '-')
		}
		b = append(b, name(bit)...)
	}
	return b
}

// appendSub appends a range of bits as mf_format_subfield of lib/nx-match.c does.
func appendSub(b []byte, s ir.Sub) []byte {
	b = append(b, wire[s.Field].name...)
	switch {
	case s.N == s.Field.Bits() && !s.Field.IsTunMetadata(): // to ovs-ofctl those are longer
		return append(b, "[]"...)
	case s.N == 1:
		return fmt.Appendf(b, "[%d]", s.Ofs)
	default:
		return fmt.Appendf(b, "[%d..%d]", s.Ofs, s.Ofs+s.N-1)
	}
}

func appendActionsText(b []byte, actions []ir.Action) []byte {
	if len(actions) == 0 {
		return append(b, "drop"...)
	}
	for i, a := range actions {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendActionText(b, a)
	}
	return b
}

func appendActionText(b []byte, a ir.Action) []byte {
	switch a := a.(type) {
	case ir.Output:
		p := portIR(a.Port)
		if p < portReserved16 {
			b = append(b, "output:"...)
		}
		b = appendPort(b, p)
		if p == portController {
			b = append(b, ":0"...)
		}
		return b
	case ir.Resubmit:
		return fmt.Appendf(b, "resubmit(,%d)", a.Table)
	case ir.Set:
		b = append(b, "set_field:"...)
		b = appendValue(b, a.Field, a.Value, a.Mask)
		if a.Mask == a.Field.Ones() && !wholeBytes(a.Field) {
			b = appendHex(append(b, '/'), a.Mask)
		}
		return append(append(b, "->"...), a.Field.String()...)
	case ir.Move:
		return appendSub(append(appendSub(append(b, "move:"...), a.Src), "->"...), a.Dst)
	case ir.Push:
		return appendSub(append(b, "push:"...), a.Sub)
	case ir.Pop:
		return appendSub(append(b, "pop:"...), a.Sub)
	case ir.StripVLAN:
		return append(b, "pop_vlan"...)
	case ir.PushVLAN:
		return fmt.Appendf(b, "push_vlan:0x%x", a.EtherType)
	case ir.DecTTL:
		return append(b, "dec_ttl()"...)
	case ir.CTClear:
		return append(b, "ct_clear"...)
	case ir.CT:
		return appendCTText(b, &a)
	case ir.Clone:
		b = append(b, "clone("...)
		return append(appendActionsText(b, a.Actions), ')')
	case ir.Conjunction:
		return fmt.Appendf(b, "conjunction(%d,%d/%d)", a.ID, int(a.Clause)+1, a.N)
	case ir.Group:
		return fmt.Appendf(b, "group:%d", a.ID)
	case ir.Controller:
		return appendControllerText(b, &a)
	case ir.Learn:
		return appendLearnText(b, &a)
	case ir.Meter:
		return fmt.Appendf(b, "meter:%d", a.ID)
	case ir.SetQueue:
		return fmt.Appendf(b, "set_queue:%d", a.ID)
	case ir.CheckPktLarger:
		return appendSub(fmt.Appendf(b, "check_pkt_larger(%d)->", a.Len), a.Dst)
	case ir.Sample:
		b = fmt.Appendf(b, "sample(probability=%d,collector_set_id=%d,obs_domain_id=%d,obs_point_id=%d",
			a.Probability, a.CollectorSet, a.ObsDomain, a.ObsPoint)
		if a.SamplingPort != samplePortNone {
			b = appendPort(append(b, ",sampling_port="...), uint32(a.SamplingPort))
		}
		return append(b, ')')
	case ir.Bundle:
		b = fmt.Appendf(b, "bundle(eth_src,%d,active_backup,ofport,members:", a.Basis)
		for i, m := range a.Members {
			if i > 0 {
				b = append(b, ',')
			}
			b = appendPort(b, uint32(m))
		}
		return append(b, ')')
	case ir.Note:
		// The padding is part of the note.
		data := a.Data
		for len(data)%8 != 6 {
			data = append(slices.Clip(data), 0)
		}
		return appendDotted(append(b, "note:"...), data)
	default:
		panic(fmt.Sprintf("openflow: action %T", a))
	}
}

// appendDotted appends bytes in hexadecimal with dots between them.
func appendDotted(b, data []byte) []byte {
	for i, x := range data {
		if i > 0 {
			b = append(b, '.')
		}
		b = hex.AppendEncode(b, []byte{x})
	}
	return b
}

func appendCTText(b []byte, a *ir.CT) []byte {
	b = append(b, "ct("...)
	n := len(b)
	if a.Commit {
		b = append(b, "commit,"...)
	}
	if a.Force {
		b = append(b, "force,"...)
	}
	if a.Table != ir.NoTable {
		b = fmt.Appendf(b, "table=%d,", a.Table)
	}
	if a.ZoneFrom.Field != 0 {
		b = append(appendSub(append(b, "zone="...), a.ZoneFrom), ',')
	} else if a.Zone != 0 {
		b = fmt.Appendf(b, "zone=%d,", a.Zone)
	}
	if a.NAT != nil {
		b = append(appendNATText(b, a.NAT), ',')
	}
	if len(a.Exec) > 0 {
		b = append(appendActionsText(append(b, "exec("...), a.Exec), "),"...)
	}
	switch a.Alg {
	case 0:
	case 21:
		b = append(b, "alg=ftp,"...)
	case 69:
		b = append(b, "alg=tftp,"...)
	default:
		b = fmt.Appendf(b, "alg=%d,", a.Alg)
	}
	if len(b) > n {
		b = b[:len(b)-1]
	}
	return append(b, ')')
}

func appendNATText(b []byte, n *ir.NAT) []byte {
	b = append(b, "nat"...)
	switch {
	case n.Src:
		b = append(b, "(src"...)
	case n.Dst:
		b = append(b, "(dst"...)
	default:
		return b
	}
	if n.AddrMin.IsZero() {
		return append(b, ')')
	}
	size := 32
	if n.IPv6 {
		size = 128
	}
	addr := func(b []byte, v ir.U128) []byte {
		if n.IPv6 && n.PortMin != 0 {
			return append(appendAddr(append(b, '['), v, size), ']')
		}
		return appendAddr(b, v, size)
	}
	b = addr(append(b, '='), n.AddrMin)
	if !n.AddrMax.IsZero() && n.AddrMax != n.AddrMin {
		b = addr(append(b, '-'), n.AddrMax)
	}
	if n.PortMin != 0 {
		b = fmt.Appendf(b, ":%d", n.PortMin)
		if n.PortMax != 0 && n.PortMax != n.PortMin {
			b = fmt.Appendf(b, "-%d", n.PortMax)
		}
	}
	if n.Persistent {
		b = append(b, ",persistent"...)
	}
	if n.ProtoHash {
		b = append(b, ",hash"...)
	}
	if n.ProtoRandom {
		b = append(b, ",random"...)
	}
	return append(b, ')')
}

func appendControllerText(b []byte, a *ir.Controller) []byte {
	if a.ControllerID == 0 && len(a.UserData) == 0 && !a.Pause && a.MeterID == 0 {
		return fmt.Appendf(b, "CONTROLLER:%d", a.MaxLen)
	}
	b = append(b, "controller("...)
	if a.MaxLen != 0xffff {
		b = fmt.Appendf(b, "max_len=%d,", a.MaxLen)
	}
	if a.ControllerID != 0 {
		b = fmt.Appendf(b, "id=%d,", a.ControllerID)
	}
	if len(a.UserData) > 0 {
		b = append(appendDotted(append(b, "userdata="...), a.UserData), ',')
	}
	if a.Pause {
		b = append(b, "pause,"...)
	}
	if a.MeterID != 0 {
		b = fmt.Appendf(b, "meter_id=%d,", a.MeterID)
	}
	b[len(b)-1] = ')'
	return b
}

func appendLearnText(b []byte, a *ir.Learn) []byte {
	b = fmt.Appendf(b, "learn(table=%d", a.Table)
	if a.IdleTimeout != 0 {
		b = fmt.Appendf(b, ",idle_timeout=%d", a.IdleTimeout)
	}
	if a.HardTimeout != 0 {
		b = fmt.Appendf(b, ",hard_timeout=%d", a.HardTimeout)
	}
	if a.Priority != defaultPriority {
		b = fmt.Appendf(b, ",priority=%d", a.Priority)
	}
	if a.DeleteLearned {
		b = append(b, ",delete_learned"...)
	}
	if a.Cookie != 0 {
		b = fmt.Appendf(b, ",cookie=%#x", a.Cookie)
	}
	for i := range a.Terms {
		t := &a.Terms[i]
		b = append(b, ',')
		imm := t.Imm.And(ir.Ones(t.Dst.N))
		switch {
		case t.Load && t.Src.Field == 0:
			b = appendSub(append(appendHex(append(b, "load:"...), imm), "->"...), t.Dst)
		case t.Load:
			b = appendSub(append(appendSub(append(b, "load:"...), t.Src), "->"...), t.Dst)
		case t.Src.Field != 0:
			b = appendSub(b, t.Dst)
			if t.Src.Field != t.Dst.Field || t.Src.Ofs != t.Dst.Ofs {
				b = appendSub(append(b, '='), t.Src)
			}
		case t.Dst == ir.Whole(t.Dst.Field):
			b = append(append(b, t.Dst.Field.String()...), '=')
			b = appendValue(b, t.Dst.Field, imm, t.Dst.Field.Ones())
		default:
			b = appendHex(append(appendSub(b, t.Dst), '='), imm)
		}
	}
	return append(b, ')')
}
