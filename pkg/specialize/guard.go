package specialize

import "github.com/offloadd/offloadd/pkg/ir"

// EtherTypes.
const (
	etherTypeIPv4 = 0x0800
	etherTypeIPv6 = 0x86dd
)

// IP protocols.
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
)

// minTTL is the smallest TTL that passes the guards.
const minTTL = 2

// guards returns what is never asked of the connection tracker by filters, nor forwarded by them.
func guards() []Guard {
	var all []Guard
	multicast := ir.Match{}.Masked(ir.EthDst, 1<<40, 1<<40)
	for _, family := range []uint16{etherTypeIPv4, etherTypeIPv6} {
		all = append(all,
			Guard{family, multicast, Multicast},
			Guard{family, ir.Match{}.Masked(ir.IPFrag, 1, 1), Fragments},
			Guard{family, ir.Match{}.Masked(ir.IPTTL, 0, 0xff&^(minTTL-1)), ShortTTL},
			// OVN's pipeline treats DHCPv6 apart in many places, also with IPv4: to follow it would double the chains.
			Guard{family, ir.Match{}.Eq(ir.IPProto, protoUDP).Eq(ir.UDPSrc, 546).Eq(ir.UDPDst, 547), DHCP},
		)
	}
	icmp := ir.Match{}.Eq(ir.IPProto, protoICMP)
	for _, typ := range []uint64{3, 4, 5, 11, 12} { // RFC 792: the messages about other packets
		all = append(all, Guard{etherTypeIPv4, icmp.Eq(ir.ICMPType, typ), ICMPErrors})
	}
	icmp6 := ir.Match{}.Eq(ir.IPProto, protoICMPv6)
	all = append(all, Guard{etherTypeIPv6, icmp6.Masked(ir.ICMPv6Type, 0, 0x80), ICMPErrors}) // RFC 4443: types below 128
	for _, r := range []struct{ value, mask uint64 }{                                         // RFC 2710, 4861, 3810: types 130 to 143
		{0x82, 0xfe}, {0x84, 0xfc}, {0x88, 0xf8},
	} {
		all = append(all, Guard{etherTypeIPv6, icmp6.Masked(ir.ICMPv6Type, r.value, r.mask), NeighbourDiscovery})
	}
	return all
}
