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

// macBinding adds the rules of a learned neighbour. The rules go to the datapath of port, which is the logical router
// port that b names, whatever b.Datapath says.
func macBinding(s *sink, dp *sb.Datapath, port *sb.Port, b *sb.MACBinding) error {
	if err := neighbor(s, dp, port, prioLearned, b.UUID, b.IP, b.MAC); err != nil {
		return fmt.Errorf("compile MAC_Binding %s of %s: %w", b.UUID, port.Name, err)
	}
	return nil
}

// staticMACBinding adds the rules of a configured neighbour, as macBinding does.
func staticMACBinding(s *sink, dp *sb.Datapath, port *sb.Port, b *sb.StaticMACBinding) error {
	priority := uint16(prioStaticDefault)
	if b.Override {
		priority = prioStaticOverride
	}
	if err := neighbor(s, dp, port, priority, b.UUID, b.IP, b.MAC); err != nil {
		return fmt.Errorf("compile Static_MAC_Binding %s of %s: %w", b.UUID, port.Name, err)
	}
	return nil
}

// neighbor adds two rules. In TableMACBinding, get_arp() and get_nd() find the address of a next hop and put it into
// eth.dst. In TableMACLookup, lookup_arp() and lookup_nd() find out whether what a packet says about its sender is
// known already. Both find the IP address in reg0, or xxreg0 for IPv6, and answer in flagLookupMAC.
func neighbor(s *sink, dp *sb.Datapath, port *sb.Port, priority uint16, row sb.UUID, ipText, macText string) error {
	mac, err := parseMAC(macText)
	if err != nil {
		return err
	}
	ip, err := parseIP(ipText)
	if err != nil {
		return err
	}
	known := ir.Load(ir.Bit(regFlags, flagLookupMAC), 1)

	get := operand(ip).Eq(ir.Metadata, uint64(dp.Key)).Eq(regOutport, uint64(port.Key))
	s.rule(TableMACBinding, priority, row.Cookie(), get, ir.SetWhole(ir.EthDst, uint64(mac)), known)

	lookup := operand(ip).Eq(ir.Metadata, uint64(dp.Key)).Eq(regInport, uint64(port.Key)).Eq(ir.EthSrc, uint64(mac))
	if ip.Is4() {
		lookup = lookup.Eq(ir.EthType, ethARP)
	} else {
		lookup = lookup.Eq(ir.EthType, ethIPv6).Eq(ir.IPProto, protoICMPv6).Eq(ir.ICMPv6Code, 0)
	}
	s.rule(TableMACLookup, priority, row.Cookie(), lookup, known)
	return nil
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
