package tc

import (
	"net/netip"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

// examples are filters as the compiler makes them, in the order of the golden files.
func examples(t testing.TB) []Filter {
	t.Helper()
	m := ir.Match{}
	mac := func(s uint64) ir.U128 { return ir.U64(s) }
	cookie := Cookie{0x0f, 0xfd, 15: 1}
	fs := []Filter{
		{Protocol: ProtocolAll, Actions: []Action{Pass{}}},
		{
			Protocol: ProtocolIPv4, Match: m.Eq(ir.IPProto, 6).Eq(ir.TCPDst, 80).Masked(ir.IPDst, 0x0a000000, 0xff000000),
			Actions: []Action{CT{Zone: 7, NAT: true}, Goto{5}}, Cookie: cookie,
		},
		{
			Chain: 5, Protocol: ProtocolIPv4, Match: m.Masked(ir.CTState, stateTrk|stateEst, stateTrk|stateEst|stateRpl).Masked(ir.CTMark, 0, 1).Eq(ir.CTZone, 7),
			Actions: []Action{Pedit{[]Edit{
				{Field: ir.EthSrc, Value: mac(0x0000_0a_00_00_01), Mask: ir.Ones(48)},
				{Field: ir.EthDst, Value: mac(0x0200_00_00_00_02), Mask: ir.Ones(48)},
				{Field: ir.IPTTL, Value: ir.U64(0xff), Mask: ir.Ones(8), Add: true},
			}}, CSum{IPv4: true}, Mirred{Ifindex: 1}}, Cookie: cookie,
		},
		{Chain: 5, Protocol: ProtocolAll, Actions: []Action{CT{Clear: true}, Pass{}}, Cookie: cookie},
		{Protocol: ProtocolIPv6, Match: m.Eq(ir.IPProto, 58).Eq(ir.ICMPv6Type, 135).Eq(ir.ICMPv6Code, 0).Eq(ir.IPTTL, 255), Flags: SkipHW, Actions: []Action{Pass{}}},
		{
			Protocol: ProtocolIPv6, Match: m.Eq(ir.IPProto, 17).Masked(ir.UDPSrc, 0x8000, 0xc000).Masked(ir.IPDSCP, 46, 63),
			Actions: []Action{CT{Clear: true}, Pedit{[]Edit{
				{Field: ir.IPv6Dst, Value: ir.U128{Hi: 0xfd00 << 48, Lo: 1}, Mask: ir.Ones(128)},
				{Field: ir.IPDSCP, Value: ir.U64(10), Mask: ir.Ones(6)},
				{Field: ir.UDPDst, Value: ir.U64(53), Mask: ir.Ones(16)},
			}}, CSum{UDP: true}, Drop{}},
		},
		{
			Protocol: ProtocolIPv4, EncDstPort: 6081, Match: m.Eq(ir.TunSrc, 0xac120002).Eq(ir.TunDst, 0xac120003).Eq(ir.TunID, 3).Masked(ir.TunMetadata0, 0x00010002, 0x7fffffff),
			Actions: []Action{TunnelUnset{}, Mirred{Ifindex: 1}}, Cookie: cookie,
		},
		{
			Protocol: ProtocolIPv4, Match: m.Eq(ir.IPProto, 1).Eq(ir.ICMPType, 8).Masked(ir.IPFrag, 0, 1),
			Actions: []Action{TunnelSet{
				ID: 3, Src: netip.MustParseAddr("172.18.0.2"), Dst: netip.MustParseAddr("172.18.0.3"), DstPort: 6081, TTL: 64, TOS: 0xb8,
				Options: []GeneveOption{{OptionClass, OptionType, "\x00\x01\x00\x02"}},
			}, Mirred{Ifindex: 1}},
		},
		{Protocol: ProtocolARP, Match: m.Eq(ir.ARPOp, 1).Eq(ir.ARPTPA, 0x0a000001), Actions: []Action{Drop{}}},
		{
			Protocol: ProtocolVLAN, Match: m.Masked(ir.VLANTCI, 0x1005, 0x1fff).Eq(ir.EthType, ProtocolIPv4).Eq(ir.IPDst, 0x0a000001),
			Actions: []Action{VLAN{Op: VLANPop}, VLAN{VLANPush, 6, 3, ProtocolVLAN}, Mirred{Ifindex: 1, Mirror: true}, Drop{}},
		},
		{
			Protocol: ProtocolIPv4, Indev: "lo", Match: m.Eq(ir.IPProto, 6).Masked(ir.TCPFlags, 2, 7), Flags: SkipSW,
			Actions: []Action{CT{
				Commit: true, Zone: 9, Mark: 1, MarkMask: 3, Label: ir.U64(0x10), LabelMask: ir.U64(0xff), NAT: true, Src: true,
				AddrMin: netip.MustParseAddr("10.0.0.1"), AddrMax: netip.MustParseAddr("10.0.0.9"), PortMin: 1024, PortMax: 2048,
			}, Trap{}},
		},
		{Protocol: ProtocolAll, Match: m.Masked(ir.VLANTCI, 0, vlanPresent), Actions: []Action{SkbEdit{Mark: 5, MarkMask: 0xff, Host: true}, Mirred{Ifindex: 1, Ingress: true}}},
	}
	for i := range fs {
		fs[i].Pref, fs[i].Handle = uint16(10*(i+1)), uint32(i+1)
		if err := fs[i].Check(); err != nil {
			t.Fatal(err)
		}
	}
	return fs
}
