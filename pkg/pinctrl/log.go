package pinctrl

import (
	"fmt"
	"strings"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Entry is what the action log has to say of a packet, in the words of ovn-controller's acl_log.
type Entry struct {
	Name      string // of the ACL; "<unnamed>" if it has none
	Verdict   string // allow, drop or reject
	Severity  string
	Direction string // from-lport or to-lport
	Flow      string // the packet's headers, as ovs-ofctl(8) prints a match
}

// unnamed stands for the name of an ACL that has none.
const unnamed = "<unnamed>"

// Names of enum log_verdict of OVN, and of the severities, which have the numbers of syslog(3).
var (
	verdicts   = map[uint8]string{0: "allow", 1: "drop", 2: "reject"}
	severities = map[uint8]string{1: "alert", 4: "warning", 5: "notice", 6: "info", 7: "debug"}
)

func nameOf(names map[uint8]string, n uint8) string {
	if name, ok := names[n]; ok {
		return name
	}
	return "<unknown>"
}

// IsLog reports whether pin asks for an [Entry] and not for an answer.
func IsLog(pin openflow.PacketIn) bool {
	return len(pin.UserData) >= compile.OpcodeHeader && opcode(pin.UserData) == compile.OpLog
}

// Log returns the entry that pin asks for.
func Log(pin openflow.PacketIn) (Entry, error) {
	data := pin.UserData
	if len(data) < compile.OpcodeHeader+compile.LogHeader {
		return Entry{}, fmt.Errorf("pinctrl log of table %d: user data of %d bytes", pin.Table, len(data))
	}
	data = data[compile.OpcodeHeader:]
	e := Entry{
		Name:      string(data[compile.LogHeader:]),
		Verdict:   nameOf(verdicts, data[0]),
		Severity:  nameOf(severities, data[1]),
		Direction: "from-lport",
		Flow:      flowText(headers(pin.Packet)),
	}
	if e.Name == "" {
		e.Name = unnamed
	}
	if pin.Table >= compile.TableEgress {
		e.Direction = "to-lport"
	}
	return e, nil
}

// flowText returns m in the words of flow_format of OVS: that there is no tag is one word there, which in matches cannot be
// said so.
func flowText(m ir.Match) string {
	return strings.Replace(openflow.FormatMatch(m), "vlan_tci=0x0000/0x1fff", "vlan_tci=0x0000", 1)
}

// headers returns the match that a packet's headers satisfy, as far as they are there, and no other packet's: what
// flow_extract and match_init of OVS make of it, without tags behind the first.
func headers(packet []byte) ir.Match {
	f, err := parseFrame(packet)
	if len(packet) < ethHeader {
		return nil
	}
	var m ir.Match
	put := func(field ir.Field, b []byte) { m, _ = m.With(field, ir.FromBytes(b), field.Ones()) }
	tci := uint64(0)
	if f.tagged {
		tci = uint64(f.tci) | 0x1000 // OVS marks a tag that is there by the bit CFI
	}
	m = m.Eq(ir.VLANTCI, tci)
	put(ir.EthDst, packet[0:6])
	put(ir.EthSrc, packet[6:12])
	m = m.Eq(ir.EthType, uint64(f.etherType))
	if err != nil {
		return m
	}
	p := packet[f.l3:]
	switch f.etherType {
	case etherARP, etherRARP:
		if len(p) < 28 || be.Uint64(p)>>16 != 0x000108000604 {
			return m // not of IPv4 on Ethernet
		}
		m = m.Eq(ir.ARPOp, uint64(be.Uint16(p[6:])))
		put(ir.ARPSHA, p[8:14])
		put(ir.ARPSPA, p[14:18])
		put(ir.ARPTHA, p[18:24])
		put(ir.ARPTPA, p[24:28])
		return m
	case etherIPv4:
		put(ir.IPSrc, f.src.AsSlice())
		put(ir.IPDst, f.dst.AsSlice())
	case etherIPv6:
		put(ir.IPv6Src, f.src.AsSlice())
		put(ir.IPv6Dst, f.dst.AsSlice())
		m = m.Eq(ir.IPv6Label, uint64(be.Uint32(p)&0xfffff))
	default:
		return m
	}
	m = m.Eq(ir.IPProto, uint64(f.proto)).Eq(ir.IPDSCP, uint64(f.trafficClass()>>2)).Eq(ir.IPECN, uint64(f.trafficClass()&3)).
		Eq(ir.IPTTL, uint64(f.hopLimit())).Eq(ir.IPFrag, [...]uint64{whole: 0, firstFragment: 1, laterFragment: 3}[f.fragment])

	t := f.transport()
	ports := func(src, dst ir.Field) {
		m = m.Eq(src, uint64(be.Uint16(t))).Eq(dst, uint64(be.Uint16(t[2:])))
	}
	switch {
	case f.proto == protoTCP && len(t) >= tcpHeader:
		ports(ir.TCPSrc, ir.TCPDst)
		m = m.Eq(ir.TCPFlags, uint64(be.Uint16(t[12:])&0xfff))
	case f.proto == protoUDP && len(t) >= 8:
		ports(ir.UDPSrc, ir.UDPDst)
	case f.proto == protoSCTP && len(t) >= sctpHeader:
		ports(ir.SCTPSrc, ir.SCTPDst)
	case f.proto == protoICMP && f.etherType == etherIPv4 && len(t) >= icmpHeader:
		m = m.Eq(ir.ICMPType, uint64(t[0])).Eq(ir.ICMPCode, uint64(t[1]))
	case f.proto == protoICMPv6 && f.etherType == etherIPv6 && len(t) >= icmpHeader:
		m = m.Eq(ir.ICMPv6Type, uint64(t[0])).Eq(ir.ICMPv6Code, uint64(t[1]))
		if (t[0] == 135 || t[0] == 136) && t[1] == 0 && len(t) >= ndHeader {
			m = neighbour(m, t)
		}
	}
	return m
}

// neighbour adds to m what is in a Neighbor Solicitation or Advertisement, RFC 4861, sections 4.3 and 4.4.
func neighbour(m ir.Match, nd []byte) ir.Match {
	m, _ = m.With(ir.NDTarget, ir.FromBytes(nd[8:24]), ir.NDTarget.Ones())
	sll, tll := make([]byte, 6), make([]byte, 6)
	for o := nd[ndHeader:]; len(o) >= llaOption && o[1] != 0 && int(o[1])*8 <= len(o); o = o[int(o[1])*8:] {
		switch {
		case o[0] == 1 && o[1] == 1:
			copy(sll, o[2:])
		case o[0] == 2 && o[1] == 1:
			copy(tll, o[2:])
		}
	}
	m, _ = m.With(ir.NDSLL, ir.FromBytes(sll), ir.NDSLL.Ones())
	m, _ = m.With(ir.NDTLL, ir.FromBytes(tll), ir.NDTLL.Ones())
	return m
}
