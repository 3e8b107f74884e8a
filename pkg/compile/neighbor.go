package compile

import (
	"fmt"
	"net/netip"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

// Priorities of neighbours in tables 66 and 67: a configured one is either a default for what may be learned or
// stands above it.
const (
	prioStaticDefault  = 50
	prioLearned        = 100
	prioStaticOverride = 150
	prioFDB            = 100
)

// arpReply is ARPOP_REPLY of RFC 826.
const arpReply = 2

// macBinding adds the rules of a learned neighbour. The rules go to the datapath of port, which is the logical router
// port that b names, whatever b.Datapath says. Where neighbours age, packets that it sends are counted.
func macBinding(s *sink, dp *sb.Datapath, port *sb.Port, b *sb.MACBinding) error {
	ip, hw, err := parseNeighbor(b.IP, b.MAC)
	if err != nil {
		return fmt.Errorf("compile MAC_Binding %s of %s: %w", b.UUID, port.Name, err)
	}
	neighbor(s, dp, port, prioLearned, b.UUID, ip, hw)
	if dp.MACBindingAge > 0 {
		neighborUse(s, dp, port, b.UUID, ip, hw)
	}
	return nil
}

// staticMACBinding adds the rules of a configured neighbour, as macBinding does.
func staticMACBinding(s *sink, dp *sb.Datapath, port *sb.Port, b *sb.StaticMACBinding) error {
	priority := uint16(prioStaticDefault)
	if b.Override {
		priority = prioStaticOverride
	}
	ip, hw, err := parseNeighbor(b.IP, b.MAC)
	if err != nil {
		return fmt.Errorf("compile Static_MAC_Binding %s of %s: %w", b.UUID, port.Name, err)
	}
	neighbor(s, dp, port, priority, b.UUID, ip, hw)
	return nil
}

// neighbor adds two rules. In TableMACBinding, get_arp() and get_nd() find the address of a next hop and put it into
// eth.dst. In TableMACLookup, lookup_arp() and lookup_nd() find out whether what a packet says about its sender is
// known already. Both find the IP address in reg0, or xxreg0 for IPv6, and answer in flagLookupMAC.
func neighbor(s *sink, dp *sb.Datapath, port *sb.Port, priority uint16, row sb.UUID, ip netip.Addr, hw mac) {
	known := ir.Load(ir.Bit(regFlags, flagLookupMAC), 1)

	get := operand(ip).Eq(ir.Metadata, uint64(dp.Key)).Eq(regOutport, uint64(port.Key))
	s.rule(TableMACBinding, priority, row.Cookie(), get, ir.SetWhole(ir.EthDst, uint64(hw)), known)

	lookup := operand(ip).Eq(ir.Metadata, uint64(dp.Key)).Eq(regInport, uint64(port.Key)).Eq(ir.EthSrc, uint64(hw))
	if ip.Is4() {
		lookup = lookup.Eq(ir.EthType, ethARP)
	} else {
		lookup = lookup.Eq(ir.EthType, ethIPv6).Eq(ir.IPProto, protoICMPv6).Eq(ir.ICMPv6Code, 0)
	}
	s.rule(TableMACLookup, priority, row.Cookie(), lookup, known)
}

// neighborUse adds the rules of TableMACCacheUse that a packet from a neighbour meets: IP packets, and ARP replies. They do nothing; what
// counts is that they count.
func neighborUse(s *sink, dp *sb.Datapath, port *sb.Port, row sb.UUID, ip netip.Addr, hw mac) {
	from := ir.Match{}.Eq(ir.Metadata, uint64(dp.Key)).Eq(regInport, uint64(port.Key)).Eq(ir.EthSrc, uint64(hw))
	alone := netip.PrefixFrom(ip, ip.BitLen())
	if ip.Is6() {
		s.rule(TableMACCacheUse, prioLearned, row.Cookie(), withPrefix(from.Eq(ir.EthType, ethIPv6), ir.IPv6Src, alone))
		return
	}
	s.rule(TableMACCacheUse, prioLearned, row.Cookie(), withPrefix(from.Eq(ir.EthType, ethIPv4), ir.IPSrc, alone))
	s.rule(TableMACCacheUse, prioLearned, row.Cookie(), withPrefix(from.Eq(ir.EthType, ethARP).Eq(ir.ARPOp, arpReply), ir.ARPSPA, alone))
}

func parseNeighbor(ipText, macText string) (ip netip.Addr, hw mac, err error) {
	if hw, err = parseMAC(macText); err != nil {
		return ip, hw, err
	}
	ip, err = parseIP(ipText)
	return ip, hw, err
}

// operand matches the IP address that a lookup action has put into reg0 or xxreg0.
func operand(ip netip.Addr) ir.Match {
	f := ir.XXReg0
	if ip.Is4() {
		f = ir.Reg0
	}
	return withPrefix(nil, f, netip.PrefixFrom(ip, ip.BitLen()))
}

// fdbEntry adds the rules of a MAC address that was learned on a port with unknown addresses. In TableGetFDB,
// get_fdb() finds the port of eth.dst; in TableLookupFDB, lookup_fdb() finds out whether eth.src is known on the port
// it comes from. Only the keys matter: the port need not exist.
func fdbEntry(s *sink, dp *sb.Datapath, f *sb.FDB) error {
	mac, err := parseMAC(f.MAC)
	if err != nil {
		return fmt.Errorf("compile FDB %s: %w", f.UUID, err)
	}
	onDatapath := ir.Match{}.Eq(ir.Metadata, uint64(dp.Key))
	s.rule(TableGetFDB, prioFDB, f.UUID.Cookie(),
		onDatapath.Eq(ir.EthDst, uint64(mac)),
		ir.SetWhole(regOutport, uint64(f.PortKey)))
	s.rule(TableLookupFDB, prioFDB, f.UUID.Cookie(),
		onDatapath.Eq(ir.EthSrc, uint64(mac)).Eq(regInport, uint64(f.PortKey)),
		ir.Load(ir.Bit(regFlags, flagLookupFDB), 1))
	return nil
}

// withPrefix returns m && f is in p. It says nothing for a prefix of length 0. m has no term on f.
func withPrefix(m ir.Match, f ir.Field, p netip.Prefix) ir.Match {
	n := p.Addr().BitLen()
	m, _ = m.With(f, ir.FromBytes(p.Addr().AsSlice()), ir.Ones(p.Bits()).Shl(n-p.Bits()))
	return m
}
