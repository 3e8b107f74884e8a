package tc

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// String returns f in one line, in the words of tc-flower(8) but for the cookie, which is written once, at the end:
//
//	chain 3 pref 10 handle 0x1 protocol ip flower ip_proto tcp dst_port 80 action ct zone 7 pipe action goto chain 4 cookie 0c…
//
// Devices are written as their numbers, "if7". Two filters have the same line exactly if they are the same.
func (f *Filter) String() string {
	s := f.args(nil, false)
	if f.Cookie != (Cookie{}) {
		s += " cookie " + f.Cookie.String()
	}
	return s
}

// Args returns the arguments that tc(8) of iproute2 6.1 needs after "filter add" and a target to install f, in the order in
// which AppendFilter encodes. device names a device by its number; nil writes "if7", which tc understands. Tc has no
// words for masks of IP addresses that are no prefixes, nor for masks of edits of more than 32 bits.
func (f *Filter) Args(device func(ifindex int) string) string { return f.args(device, true) }

// String returns the key as tc writes it.
func (k Key) String() string {
	return fmt.Sprintf("chain %d pref %d handle %#x", k.Chain, k.Pref, k.Handle)
}

// String returns the cookie in hexadecimal, as tc writes it.
func (c Cookie) String() string { return fmt.Sprintf("%x", c[:]) }

func deviceName(device func(int) string, ifindex int) string {
	if device != nil {
		if name := device(ifindex); name != "" {
			return name
		}
	}
	return "if" + strconv.Itoa(ifindex)
}

// A line is words with blanks between them.
type line struct{ strings.Builder }

func (l *line) add(words ...string) {
	for _, w := range words {
		if l.Len() > 0 {
			l.WriteByte(' ')
		}
		l.WriteString(w)
	}
}

func (l *line) addf(format string, args ...any) { l.add(fmt.Sprintf(format, args...)) }

func (f *Filter) args(device func(int) string, full bool) string {
	var l line
	l.addf("chain %d pref %d handle %#x protocol %s flower", f.Chain, f.Pref, f.Handle, protocolArg(f.Protocol))
	for _, x := range []struct {
		flag Flags
		word string
	}{{SkipHW, "skip_hw"}, {SkipSW, "skip_sw"}, {InHW, "in_hw"}, {NotInHW, "not_in_hw"}, {Verbose, "verbose"}} {
		if f.Flags&x.flag != 0 && (!full || x.flag&(InHW|NotInHW) == 0) {
			l.add(x.word)
		}
	}
	for _, c := range f.conditions(true) {
		l.add(c.name, c.value)
	}
	for _, a := range f.Actions {
		l.add("action", f.actionArgs(a, device))
		if full && f.Cookie != (Cookie{}) {
			l.add("cookie", f.Cookie.String())
		}
		if full {
			l.add("no_percpu")
		}
	}
	return l.String()
}

// protocolName names an EtherType as ll_proto_n2a of iproute2 does.
func protocolName(p uint16) string {
	switch p {
	case ProtocolAll:
		return "all"
	case ProtocolIPv4:
		return "ip"
	case ProtocolIPv6:
		return "ipv6"
	case ProtocolARP:
		return "arp"
	case ProtocolVLAN:
		return "802.1Q"
	case ProtocolQinQ:
		return "802.1ad"
	case 0x8847:
		return "mpls_uc"
	case 0x8848:
		return "mpls_mc"
	case 0x8863:
		return "ppp_disc"
	case 0x8864:
		return "ppp_ses"
	case 0x88cc:
		return "LLDP"
	}
	return fmt.Sprintf("[%d]", p)
}

// protocolArg names an EtherType so that tc understands it.
func protocolArg(p uint16) string {
	if s := protocolName(p); s[0] != '[' {
		return s
	}
	return fmt.Sprintf("0x%04x", p)
}

// A condition is a key as tc writes it.
type condition struct{ name, value string }

// conditions returns f's conditions: as arguments of tc, in the order of AppendFilter, or as tc prints them, in the order in
// which it does.
func (f *Filter) conditions(args bool) []condition {
	var cs []condition
	add := func(name, format string, a ...any) { cs = append(cs, condition{name, fmt.Sprintf(format, a...)}) }
	if f.Indev != "" {
		add("indev", "%s", f.Indev)
	}
	v, err := vlanOf(f)
	if err != nil {
		add("(vlan", "%v)", err)
	}
	if v.none {
		add("num_of_vlans", "0")
	}
	if v.hasID {
		add("vlan_id", "%d", v.id)
	}
	if v.hasPrio {
		add("vlan_prio", "%d", v.prio)
	}
	switch {
	case v.hasType && args:
		add("vlan_ethtype", "%s", protocolArg(v.typ))
	case v.hasType:
		add("vlan_ethtype", "%s", protocolName(v.typ))
	}
	for i := 0; i < len(keys); i++ {
		k := &keys[i]
		if !args && k.field == ir.IPProto {
			// tc prints what the kernel gives back: for tagged packets, the type after the tag.
			if t := f.etherType(); t != ProtocolAll {
				add("eth_type", "%s", etherTypeName(t))
			}
		}
		var value, mask ir.U128
		var bad string
		for ; ; i++ {
			if t, ok := f.Match.Term(keys[i].field); ok {
				v, m, err := keys[i].wire(t)
				if err != nil {
					bad = err.Error()
				}
				value, mask = value.Or(v), mask.Or(m)
			}
			if i+1 == len(keys) || keys[i+1].attr != k.attr {
				break
			}
		}
		switch {
		case bad != "":
			add(k.name, "(%s)", bad)
		case !mask.IsZero():
			name := k.name
			if !args && (name == "type" || name == "code") {
				name = "icmp_" + name
			}
			add(name, "%s", k.text(value, mask, args))
		}
		if k.field == ir.TunID {
			cs = append(cs, f.tunnelConditions()...)
			if !args {
				cs = append(cs, f.fragCondition()...)
			}
		}
	}
	if args {
		cs = append(cs, f.fragCondition()...)
	}
	for _, t := range f.Match { // what there is no key for: not for tc, but for logs
		if t.Field != ir.VLANTCI && t.Field != ir.EthType && !t.Field.IsTunMetadata() && keyOfField[t.Field] == nil {
			add("("+t.Field.String(), "%v/%v)", t.Value, t.Mask)
		}
	}
	return cs
}

func (f *Filter) tunnelConditions() (cs []condition) {
	if f.EncDstPort != 0 {
		cs = append(cs, condition{"enc_dst_port", strconv.Itoa(int(f.EncDstPort))})
	}
	for _, t := range f.Match {
		if t.Field.IsTunMetadata() {
			cs = append(cs, condition{"geneve_opts", fmt.Sprintf("%04x:%02x:%08x/ffff:ff:%08x", OptionClass, OptionType, t.Value.Lo, t.Mask.Lo)})
		}
	}
	return cs
}

func (f *Filter) fragCondition() []condition {
	t, ok := f.Match.Term(ir.IPFrag)
	if !ok {
		return nil
	}
	value, mask, err := fragKey.wire(t)
	if err != nil {
		return []condition{{fragKey.name, "(" + err.Error() + ")"}}
	}
	var words []string
	for i, w := range []string{"frag", "firstfrag"} {
		switch {
		case !mask.Bit(i):
		case value.Bit(i):
			words = append(words, w)
		default:
			words = append(words, "no"+w)
		}
	}
	return []condition{{fragKey.name, strings.Join(words, "/")}}
}

func etherTypeName(t uint16) string {
	switch t {
	case ProtocolIPv4:
		return "ipv4"
	case ProtocolIPv6:
		return "ipv6"
	case ProtocolARP:
		return "arp"
	case 0x8035:
		return "rarp"
	}
	return fmt.Sprintf("%04x", t)
}

// text returns what is sent as tc prints it, or as it understands it.
func (k *key) text(value, mask ir.U128, args bool) string {
	exact := mask == ir.Ones(8*k.size)
	number := func(maskFormat string) string {
		if exact {
			return strconv.FormatUint(value.Lo, 10)
		}
		return fmt.Sprintf("%d/"+maskFormat, value.Lo, mask.Lo)
	}
	switch k.field { //nolint:exhaustive // the others are numbers
	case ir.EthDst, ir.EthSrc, ir.ARPSHA, ir.ARPTHA:
		return masked(value, mask, 48, macString)
	case ir.IPDst, ir.IPSrc, ir.ARPSPA, ir.ARPTPA, ir.TunDst, ir.TunSrc:
		return masked(value, mask, 32, ipString)
	case ir.IPv6Dst, ir.IPv6Src, ir.TunIPv6Dst, ir.TunIPv6Src:
		return masked(value, mask, 128, ip6String)
	case ir.IPProto:
		if name := ipProtoNames[value.Lo]; name != "" {
			return name
		}
		if args {
			return fmt.Sprintf("0x%x", value.Lo)
		}
		return fmt.Sprintf("%02x", value.Lo)
	case ir.TCPFlags:
		if args {
			return fmt.Sprintf("0x%x/0x%x", value.Lo, mask.Lo)
		}
		return fmt.Sprintf("0x%x/%x", value.Lo, mask.Lo)
	case ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code:
		return number("%d")
	case ir.ARPOp:
		switch {
		case exact && value.Lo == 1:
			return "request"
		case exact && value.Lo == 2:
			return "reply"
		}
		return number("%d")
	case ir.CTState:
		var b strings.Builder
		for _, c := range ctBits {
			switch {
			case mask.Lo&c.wire == 0:
			case value.Lo&c.wire != 0:
				b.WriteString("+" + c.name)
			default:
				b.WriteString("-" + c.name)
			}
		}
		return b.String()
	case ir.CTLabel:
		return labelString(value, mask)
	}
	if k.short && args && exact && value.IsZero() {
		return "0/0xffff" // tc refuses a bare 0
	}
	return number("0x%x")
}

var ipProtoNames = map[uint64]string{1: "icmp", 6: "tcp", 17: "udp", 58: "icmpv6", 132: "sctp"}

// labelString writes a ct_label as tc does: as the host's memory has it, so that bit 0 is in the first byte of a
// little-endian machine.
func labelString(value, mask ir.U128) string {
	s := fmt.Sprintf("%x", u128Bytes(value, 16, true))
	if mask != ir.Ones(128) {
		s += fmt.Sprintf("/%x", u128Bytes(mask, 16, true))
	}
	return s
}

// masked writes an address of so many bits, with its mask if it is not exact: the length of a prefix, or an address.
func masked(value, mask ir.U128, bits int, format func(ir.U128) string) string {
	s := format(value)
	if mask == ir.Ones(bits) {
		return s
	}
	n := mask.OnesCount()
	if mask == ir.Ones(n).Shl(bits-n) {
		return s + "/" + strconv.Itoa(n)
	}
	return s + "/" + format(mask)
}

func macString(v ir.U128) string {
	b := u128Bytes(v, 6, false)
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
}

func ipString(v ir.U128) string { return addrString(netip.AddrFrom4([4]byte(u128Bytes(v, 4, false)))) }

func ip6String(v ir.U128) string { return addrString(netip.AddrFrom16(v.Bytes16())) }

// addrString writes an address as inet_ntop(3) does, which writes the last 32 bits of an IPv6 address that begins with 96 bits 0
// as an IPv4 address.
func addrString(a netip.Addr) string {
	if !a.Is6() {
		return a.String()
	}
	if v := a.As16(); ir.FromBytes(v[:12]).IsZero() && v[12]|v[13] != 0 {
		return "::" + netip.AddrFrom4([4]byte(v[12:])).String()
	}
	return a.WithZone("").String()
}

// natText says of what and to what a connection is translated.
func (a CT) natText() string {
	var l line
	switch {
	case a.Src:
		l.add("src")
	case a.Dst:
		l.add("dst")
	default:
		return ""
	}
	if a.AddrMin.IsValid() {
		s := addrString(a.AddrMin)
		if a.AddrMax.IsValid() && a.AddrMax != a.AddrMin {
			s += "-" + addrString(a.AddrMax)
		}
		l.add("addr", s)
	}
	if a.PortMin != 0 {
		s := strconv.Itoa(int(a.PortMin))
		if a.PortMax != a.PortMin {
			s += "-" + strconv.Itoa(int(a.PortMax))
		}
		l.add("port", s)
	}
	return l.String()
}

func maskedNumber(value, mask uint32) string {
	if mask == ^uint32(0) {
		return strconv.FormatUint(uint64(value), 10)
	}
	return fmt.Sprintf("%d/0x%x", value, mask)
}

// actionArgs returns an action's arguments in tc.
func (f *Filter) actionArgs(a Action, device func(int) string) string {
	var l line
	l.add(kindOf(a))
	switch a := a.(type) {
	case CT:
		a.args(&l)
	case Pedit:
		l.add("ex")
		for _, e := range a.Edits {
			l.add("munge", f.editArgs(e))
		}
	case CSum:
		for i, set := range a.flags() {
			if *set {
				l.add([]string{"ip4h", "icmp", "igmp", "tcp", "udp", "udplite", "sctp"}[i])
			}
		}
	case TunnelUnset:
		l.add("unset")
	case TunnelSet:
		a.args(&l)
	case VLAN:
		l.add(a.Op.String())
		if a.Op != VLANPop {
			l.addf("id %d protocol %s priority %d", a.ID, protocolName(a.Protocol), a.Prio)
		}
	case SkbEdit:
		if a.MarkMask != 0 {
			l.add("mark", maskedNumber(a.Mark, a.MarkMask))
		}
		if a.Host {
			l.add("ptype host")
		}
	case Mirred:
		direction, op := "egress", "redirect"
		if a.Ingress {
			direction = "ingress"
		}
		if a.Mirror {
			op = "mirror"
		}
		l.add(direction, op, "dev", deviceName(device, a.Ifindex))
		if !a.Mirror {
			return l.String()
		}
	case Goto:
		return fmt.Sprintf("goto chain %d", a.Chain)
	case Pass:
		return "pass"
	case Drop:
		return "drop"
	case Trap:
		return "trap"
	}
	l.add("pipe")
	return l.String()
}

func (a CT) args(l *line) {
	if a.Clear {
		l.add("clear")
		return
	}
	if a.Commit {
		l.add("commit")
	}
	if a.Force {
		l.add("force")
	}
	l.addf("zone %d", a.Zone)
	if a.MarkMask != 0 {
		l.add("mark", maskedNumber(a.Mark, a.MarkMask))
	}
	if !a.LabelMask.IsZero() {
		l.add("label", labelString(a.Label, a.LabelMask))
	}
	if a.NAT {
		l.add("nat")
		if s := a.natText(); s != "" {
			l.add(s)
		}
	}
}

func (a TunnelSet) args(l *line) {
	l.add("set")
	if a.Src.IsValid() {
		l.add("src_ip", addrString(a.Src))
	}
	if a.Dst.IsValid() {
		l.add("dst_ip", addrString(a.Dst))
	}
	l.addf("id %d", a.ID)
	if a.DstPort != 0 {
		l.addf("dst_port %d", a.DstPort)
	}
	if len(a.Options) > 0 {
		l.add("geneve_opts", optionsText(a.Options))
	}
	if a.TOS != 0 {
		l.addf("tos %d", a.TOS)
	}
	if a.TTL != 0 {
		l.addf("ttl %d", a.TTL)
	}
	if a.NoFrag {
		l.add("no_frag")
	}
	if a.NoCSum {
		l.add("nocsum")
	}
}

// String returns the operation's name in tc.
func (op VLANOp) String() string {
	switch op {
	case VLANPop:
		return "pop"
	case VLANPush:
		return "push"
	case VLANModify:
		return "modify"
	}
	return fmt.Sprintf("operation-%d", uint8(op))
}

func optionsText(opts []GeneveOption) string {
	parts := make([]string, 0, len(opts))
	for _, o := range opts {
		parts = append(parts, fmt.Sprintf("%04x:%02x:%x", o.Class, o.Type, o.Data))
	}
	return strings.Join(parts, ",")
}

// editArgs returns what follows "munge".
func (f *Filter) editArgs(e Edit) string {
	v6 := f.etherType() == ProtocolIPv6
	where, value, whole := e.Field.String(), "", e.Mask == e.Field.Ones()
	switch e.Field { //nolint:exhaustive // pedit knows no others
	case ir.EthSrc:
		where, value = "eth src", macString(e.Value)
	case ir.EthDst:
		where, value = "eth dst", macString(e.Value)
	case ir.IPSrc:
		where, value = "ip src", ipString(e.Value)
	case ir.IPDst:
		where, value = "ip dst", ipString(e.Value)
	case ir.IPv6Src:
		where, value = "ip6 src", ip6String(e.Value)
	case ir.IPv6Dst:
		where, value = "ip6 dst", ip6String(e.Value)
	case ir.IPTTL:
		if where = "ip ttl"; v6 {
			where = "ip6 hoplimit"
		}
	case ir.IPDSCP:
		if where = "ip dsfield"; v6 {
			where = "ip6 traffic_class"
		}
		e.Value, e.Mask, whole = e.Value.Shl(2), e.Mask.Shl(2), false
	case ir.TCPSrc:
		where = "tcp sport"
	case ir.TCPDst:
		where = "tcp dport"
	case ir.UDPSrc:
		where = "udp sport"
	case ir.UDPDst:
		where = "udp dport"
	}
	if value == "" {
		value = strconv.FormatUint(e.Value.Lo, 10)
	}
	op := "set"
	if e.Add {
		op = "add"
	}
	s := where + " " + op + " " + value
	if !whole {
		s += " retain " + e.Mask.String()
	}
	return s
}
