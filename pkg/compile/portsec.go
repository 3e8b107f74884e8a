package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// EtherTypes and IP protocols of the rules in this package.
const (
	ethIPv4     = 0x0800
	ethARP      = 0x0806
	ethIPv6     = 0x86dd
	protoUDP    = 17
	protoICMPv6 = 58
)

// ICMPv6 types, RFC 4861 and RFC 3810.
const (
	icmp6MLDReport   = 131
	icmp6Solicit     = 135
	icmp6Advertise   = 136
	icmp6MLDv2Report = 143
)

// Port security priorities. In each table a more specific rule stands above the general ones.
const (
	prioPortSecDrop      = 80 // nothing else applies
	prioPortSecOutMAC    = 85 // to the host's Ethernet address
	prioPortSecAddr      = 90 // what the addresses allow; on the way out, to the host but of an IP version with addresses
	prioPortSecDecideARP = 95 // ARP: the ND table decides
	prioPortSecOutIP     = 95 // to the host's IP addresses
)

// portSecurity adds the rules that keep a VIF to the addresses in its port_security column; none if it has none.
// check_in_port_sec() asks tables 73 and 74 about what the VIF sends, check_out_port_sec() table 75 about what it
// would receive. The answer is flagCheckPortSec: 1 to drop.
//
// An entry without Ethernet address is left out; if no other is left the port is as open as without port security. Of
// an entry with something else than addresses, the part before it counts. The errors name both kinds of entries.
func portSecurity(s *sink, dp *sb.Datapath, p *sb.Port) []error {
	var errs []error
	var hosts []hostAddrs
	for _, entry := range p.PortSecurity {
		h, rest, ok := parseHostAddrs(entry)
		switch {
		case !ok:
			errs = append(errs, fmt.Errorf("compile port_security of %s: %q: no MAC address", p.Name, entry))
			continue
		case rest != "":
			errs = append(errs, fmt.Errorf("compile port_security of %s: %q: ignored from %q on", p.Name, entry, rest))
		}
		hosts = append(hosts, h)
	}
	if len(hosts) == 0 {
		return errs
	}

	g := guard{
		cookie: p.UUID.Cookie(),
		from:   ir.Match{}.Eq(ir.Metadata, uint64(dp.Key)).Eq(regInport, uint64(p.Key)),
		to:     ir.Match{}.Eq(ir.Metadata, uint64(dp.Key)).Eq(regOutport, uint64(p.Key)),
	}
	g.inDefaults()
	g.outDefault()
	for _, h := range hosts {
		g.inMAC(h)
		g.inIPv4(h)
		g.inARP(h)
		g.inIPv6(h)
		g.inND(h)
		g.out(h)
	}
	s.rules = append(s.rules, distinct(g.rules)...)
	return errs
}

// A guard collects the port security rules of one port.
type guard struct {
	sink
	cookie   uint64
	from, to ir.Match // the packets that the port sends, and those that it would receive
}

func (g *guard) allow(table uint8, priority uint16, m ir.Match) {
	g.rule(table, priority, g.cookie, m, ir.Load(ir.Bit(regFlags, flagCheckPortSec), 0))
}

func (g *guard) drop(table uint8, priority uint16, m ir.Match) {
	g.rule(table, priority, g.cookie, m, ir.Load(ir.Bit(regFlags, flagCheckPortSec), 1))
}

// checkND leaves the verdict to table 74. A packet that no rule there matches, because it is neither ARP nor neighbour
// discovery, is allowed: the flag is still 0.
func (g *guard) checkND(priority uint16, m ir.Match) {
	g.rule(TableInPortSec, priority, g.cookie, m, ir.Resubmit{Table: TableInPortSecND})
}

// inDefaults drops what no address allows. Neighbour solicitations are the exception: of those that get this far,
// having passed table 73, all are allowed, as in OVN 23.03.
func (g *guard) inDefaults() {
	g.drop(TableInPortSec, prioPortSecDrop, g.from)
	g.checkND(prioPortSecDecideARP, g.from.Eq(ir.EthType, ethARP))

	g.drop(TableInPortSecND, prioPortSecDrop, g.from.Eq(ir.EthType, ethARP))
	nd := icmp6(g.from).Eq(ir.IPTTL, 255)
	g.drop(TableInPortSecND, prioPortSecDrop, nd.Eq(ir.ICMPv6Type, icmp6Advertise))
	g.allow(TableInPortSecND, prioPortSecDrop, nd.Eq(ir.ICMPv6Type, icmp6Solicit))
}

// inMAC allows a host without listed IP addresses to use any.
func (g *guard) inMAC(h hostAddrs) {
	if len(h.ipv4) == 0 && len(h.ipv6) == 0 {
		g.checkND(prioPortSecAddr, g.from.Eq(ir.EthSrc, uint64(h.mac)))
	}
}

// inIPv4 allows IPv4 from the listed addresses, and DHCP before the host has one.
func (g *guard) inIPv4(h hostAddrs) {
	if len(h.ipv4) == 0 {
		return
	}
	ip := g.from.Eq(ir.EthSrc, uint64(h.mac)).Eq(ir.EthType, ethIPv4)
	for _, p := range h.ipv4 {
		g.allow(TableInPortSec, prioPortSecAddr, withPrefix(ip, ir.IPSrc, meaning(p)))
	}
	dhcp := ip.Eq(ir.IPSrc, 0).Eq(ir.IPDst, 0xffffffff).Eq(ir.IPProto, protoUDP).Eq(ir.UDPSrc, 68).Eq(ir.UDPDst, 67)
	g.allow(TableInPortSec, prioPortSecAddr, dhcp)
}

// inARP allows a host to speak ARP for its Ethernet address and its IPv4 addresses: for any if it has no IP addresses
// at all, for none if it has IPv6 addresses only.
func (g *guard) inARP(h hostAddrs) {
	arp := g.from.Eq(ir.EthSrc, uint64(h.mac)).Eq(ir.EthType, ethARP).Eq(ir.ARPSHA, uint64(h.mac))
	if len(h.ipv4) == 0 && len(h.ipv6) == 0 {
		g.allow(TableInPortSecND, prioPortSecAddr, arp)
	}
	for _, p := range h.ipv4 {
		g.allow(TableInPortSecND, prioPortSecAddr, withPrefix(arp, ir.ARPSPA, meaning(p)))
	}
}

// inIPv6 allows IPv6 from the listed addresses and the link-local one, and from the unspecified address what a host
// sends while it checks that nobody else has its address (RFC 4862, section 5.4).
func (g *guard) inIPv6(h hostAddrs) {
	if len(h.ipv6) == 0 {
		return
	}
	ip := g.from.Eq(ir.EthSrc, uint64(h.mac)).Eq(ir.EthType, ethIPv6)
	for _, p := range h.ipv6 {
		g.checkND(prioPortSecAddr, withPrefix(ip, ir.IPv6Src, meaning(p)))
	}
	g.checkND(prioPortSecAddr, withPrefix(ip, ir.IPv6Src, single(h.mac.linkLocal())))

	dad := withPrefix(ip, ir.IPv6Src, single(netip.IPv6Unspecified()))
	dad = icmp6(withPrefix(dad, ir.IPv6Dst, linkMulticast)).Eq(ir.ICMPv6Code, 0)
	g.allow(TableInPortSec, prioPortSecAddr, dad.Eq(ir.ICMPv6Type, icmp6MLDReport))
	g.allow(TableInPortSec, prioPortSecAddr, dad.Eq(ir.ICMPv6Type, icmp6MLDv2Report))
	g.checkND(prioPortSecAddr, dad.Eq(ir.ICMPv6Type, icmp6Solicit))
}

var (
	linkMulticast = netip.MustParsePrefix("ff02::/16")
	ipv6Multicast = netip.MustParsePrefix("ff00::/8")
	ipv4Multicast = netip.MustParsePrefix("224.0.0.0/4")
	ipv4Broadcast = netip.MustParsePrefix("255.255.255.255/32")
)

// inND allows a host to solicit and to advertise neighbours with its own Ethernet address or none, to advertise only
// its own IPv6 addresses if any are listed.
//
// The hop limit of 225 is OVN's own: ovn-controller means 255, the only one that RFC 4861 lets pass. So the rules
// with it match no real packet. They are here because the tables of two chassis are compared, and because what decides
// in their stead is what people's networks rely on.
func (g *guard) inND(h hostAddrs) {
	lladdrs := []uint64{0, uint64(h.mac)}
	odd := icmp6(g.from).Eq(ir.IPTTL, 225).Eq(ir.ICMPv6Code, 0)

	solicit := odd.Eq(ir.ICMPv6Type, icmp6Solicit)
	for _, a := range lladdrs {
		g.allow(TableInPortSecND, prioPortSecAddr, solicit.Eq(ir.NDSLL, a))
	}

	odd = odd.Eq(ir.ICMPv6Type, icmp6Advertise)
	if len(h.ipv6) == 0 {
		for _, a := range lladdrs {
			g.allow(TableInPortSecND, prioPortSecAddr, odd.Eq(ir.NDTLL, a))
		}
		return
	}
	advertise := icmp6(g.from).Eq(ir.EthSrc, uint64(h.mac)).Eq(ir.ICMPv6Type, icmp6Advertise).Eq(ir.ICMPv6Code, 0)
	for _, a := range lladdrs {
		own := withPrefix(odd, ir.NDTarget, single(h.mac.linkLocal()))
		g.allow(TableInPortSecND, prioPortSecAddr, own.Eq(ir.NDTLL, a))
		for _, p := range h.ipv6 {
			g.allow(TableInPortSecND, prioPortSecAddr, withPrefix(advertise, ir.NDTarget, meaning(p)).Eq(ir.NDTLL, a))
		}
	}
}

func (g *guard) outDefault() { g.drop(TableOutPortSec, prioPortSecDrop, g.to) }

// out allows a host to receive what is sent to its Ethernet address; if IP addresses are listed, of IPv4 and IPv6
// only what is sent to one of those, to the broadcast addresses or to a multicast group.
func (g *guard) out(h hostAddrs) {
	mac := g.to.Eq(ir.EthDst, uint64(h.mac))
	g.allow(TableOutPortSec, prioPortSecOutMAC, mac)
	if len(h.ipv4) == 0 && len(h.ipv6) == 0 {
		return
	}

	ip := mac.Eq(ir.EthType, ethIPv4)
	g.drop(TableOutPortSec, prioPortSecAddr, ip)
	if len(h.ipv4) != 0 {
		for _, p := range h.ipv4 {
			if isHost(p) {
				g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPDst, single(broadcast(p))))
			}
			g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPDst, meaning(p)))
		}
		g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPDst, ipv4Broadcast))
		g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPDst, ipv4Multicast))
	}

	ip = mac.Eq(ir.EthType, ethIPv6)
	g.drop(TableOutPortSec, prioPortSecAddr, ip)
	if len(h.ipv6) != 0 {
		for _, p := range h.ipv6 {
			g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPv6Dst, meaning(p)))
		}
		g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPv6Dst, single(h.mac.linkLocal())))
		g.allow(TableOutPortSec, prioPortSecOutIP, withPrefix(ip, ir.IPv6Dst, ipv6Multicast))
	}
}

func icmp6(m ir.Match) ir.Match { return m.Eq(ir.EthType, ethIPv6).Eq(ir.IPProto, protoICMPv6) }

// isHost reports whether p names an address within a network, such as 10.0.0.4/24, and not the network.
func isHost(p netip.Prefix) bool { return p.Addr() != p.Masked().Addr() }

// meaning returns the addresses that p stands for in port_security: the one address if it names one (ovn-nb(5)), all
// of the network otherwise.
func meaning(p netip.Prefix) netip.Prefix {
	if isHost(p) {
		return single(p.Addr())
	}
	return p
}

func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// broadcast returns the address of p, an IPv4 prefix, with all host bits set.
func broadcast(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	u := ir.FromBytes(b[:]).Or(ir.Ones(32 - p.Bits())).Bytes16()
	return netip.AddrFrom4([4]byte(u[12:]))
}

// distinct orders rules by table, falling priority and match, and removes the second of two with the same: entries may
// share an address, and some rules are the same for every entry. It changes rules.
func distinct(rules []ir.Rule) []ir.Rule {
	order := func(a, b ir.Rule) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(b.Priority, a.Priority),
			slices.CompareFunc(a.Match, b.Match, func(a, b ir.Term) int {
				return cmp.Or(cmp.Compare(a.Field, b.Field), a.Value.Cmp(b.Value), a.Mask.Cmp(b.Mask))
			}))
	}
	slices.SortStableFunc(rules, order)
	return slices.CompactFunc(rules, func(a, b ir.Rule) bool { return order(a, b) == 0 })
}
