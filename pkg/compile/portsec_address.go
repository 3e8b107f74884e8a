package compile

import (
	"fmt"
	"math/bits"
	"net/netip"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// A mac is an Ethernet address: the 48-bit big-endian integer of its bytes.
type mac uint64

// String returns the usual form, aa:bb:cc:dd:ee:ff.
func (m mac) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x",
		uint8(m>>40), uint8(m>>32), uint8(m>>24), uint8(m>>16), uint8(m>>8), uint8(m))
}

// linkLocal returns the IPv6 address that a host with this Ethernet address gives itself on every link: fe80::/64
// with the modified EUI-64 interface identifier of RFC 4291, appendix A.
func (m mac) linkLocal() netip.Addr {
	high, low := uint64(m)>>24, uint64(m)&0xffffff
	u := ir.U128{Hi: 0xfe80 << 48, Lo: (high^0x020000)<<40 | 0xfffe<<24 | low}
	return netip.AddrFrom16(u.Bytes16())
}

// parseMAC parses an Ethernet address. Nothing follows it.
func parseMAC(s string) (mac, error) {
	sc := scanner{s}
	m, ok := sc.mac()
	if !ok || sc.rest != "" {
		return 0, fmt.Errorf("bad MAC address %q", s)
	}
	return m, nil
}

// parseIP parses an IPv4 or IPv6 address without prefix length or zone. What has a dot is IPv4.
func parseIP(s string) (netip.Addr, error) {
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is6() && strings.Contains(s, ".") {
		return netip.Addr{}, fmt.Errorf("bad IP address %q", s)
	}
	return a, nil
}

// hostAddrs is what one entry of Port_Binding.port_security allows: an Ethernet address and, if any are listed, the IP
// addresses that go with it. The prefixes keep their host bits; 10.0.0.4/24 and 10.0.0.0/24 mean different things.
type hostAddrs struct {
	mac  mac
	ipv4 []netip.Prefix
	ipv6 []netip.Prefix
}

// parseHostAddrs parses "MAC [IP[/MASK]]...", where MASK is a length or a netmask. It returns what follows the last
// address it understands, empty if nothing does, and reports false if there is no Ethernet address to begin with.
// It takes exactly what ovn-controller takes (extract_lsp_addresses in lib/ovn-util.c): an entry that ovn-controller
// understands differently would open or close the port to other traffic than before.
func parseHostAddrs(s string) (a hostAddrs, rest string, ok bool) {
	sc := scanner{s}
	if a.mac, ok = sc.mac(); !ok {
		return hostAddrs{}, s, false
	}
	for sc.rest != "" {
		before := sc.rest
		if p, ok := sc.ipv4Prefix(); ok {
			a.ipv4 = append(a.ipv4, p)
		} else if p, ok := sc.ipv6Prefix(); ok { // from where an IPv4 prefix with a wrong mask ends
			a.ipv6 = append(a.ipv6, p)
		} else {
			return a, before, true
		}
	}
	return a, "", true
}

// A scanner reads addresses as the conversions of ovs_scan do (lib/util.c in Open vSwitch): white space may precede a
// number, a number may have a sign, a hexadecimal one 0x, and one that is too large loses its upper bits. A method that
// reports false has not moved, unless it says otherwise.
type scanner struct{ rest string }

func (s *scanner) space() {
	for s.rest != "" && (s.rest[0] == ' ' || '\t' <= s.rest[0] && s.rest[0] <= '\r') {
		s.rest = s.rest[1:]
	}
}

// literal reads the character c.
func (s *scanner) literal(c byte) bool {
	if s.rest == "" || s.rest[0] != c {
		return false
	}
	s.rest = s.rest[1:]
	return true
}

// number reads an integer in base 10 or 16, modulo 2^64. When it reports false it may have moved.
func (s *scanner) number(base uint64) (uint64, bool) {
	s.space()
	negative := s.literal('-')
	if !negative {
		s.literal('+')
	}
	if base == 16 && len(s.rest) >= 2 && s.rest[0] == '0' && s.rest[1]|0x20 == 'x' {
		s.rest = s.rest[2:]
	}
	var value uint64
	digits := 0
	for ; s.rest != ""; digits++ {
		d := hexDigit(s.rest[0])
		if d >= base {
			break
		}
		value = value*base + d
		s.rest = s.rest[1:]
	}
	if negative {
		value = -value
	}
	return value, digits > 0
}

// hexDigit returns the value of a hexadecimal digit, 16 for any other character.
func hexDigit(c byte) uint64 {
	switch {
	case '0' <= c && c <= '9':
		return uint64(c - '0')
	case 'a' <= c|0x20 && c|0x20 <= 'f':
		return uint64(c|0x20-'a') + 10
	default:
		return 16
	}
}

// bytes reads n numbers of 8 bits with sep between them, the first becoming the most significant byte.
func (s *scanner) bytes(n int, sep byte, base uint64) (uint64, bool) {
	start := s.rest
	var value uint64
	for i := range n {
		if i > 0 && !s.literal(sep) {
			s.rest = start
			return 0, false
		}
		b, ok := s.number(base)
		if !ok {
			s.rest = start
			return 0, false
		}
		value = value<<8 | b&0xff
	}
	return value, true
}

// mac reads an Ethernet address.
func (s *scanner) mac() (mac, bool) {
	m, ok := s.bytes(6, ':', 16)
	return mac(m), ok
}

// ipv4Prefix reads an IPv4 address and its mask. If only the mask is wrong it reports false but has moved beyond it.
func (s *scanner) ipv4Prefix() (netip.Prefix, bool) {
	v, ok := s.bytes(4, '.', 10)
	if !ok {
		return netip.Prefix{}, false
	}
	addr := netip.AddrFrom4([4]byte{byte(v >> 24), byte(v >> 16), byte(v >> 8), byte(v)})
	unmasked := s.rest
	if !s.literal('/') {
		return netip.PrefixFrom(addr, 32), true
	}
	if mask, ok := s.bytes(4, '.', 10); ok {
		n := bits.LeadingZeros32(^uint32(mask))
		return netip.PrefixFrom(addr, n), uint32(mask) == ^uint32(0)<<(32-n)
	}
	if n, ok := s.number(10); ok {
		return netip.PrefixFrom(addr, int(int32(n))), 0 <= int32(n) && int32(n) <= 32
	}
	s.rest = unmasked // a slash that begins no mask belongs to what follows
	return netip.PrefixFrom(addr, 32), true
}

// ipv6Prefix reads an IPv6 address and its mask. When it reports false it may have moved.
func (s *scanner) ipv6Prefix() (netip.Prefix, bool) {
	s.space()
	addr, ok := s.ipv6()
	if !ok {
		return netip.Prefix{}, false
	}
	unmasked := s.rest
	if !s.literal('/') {
		return netip.PrefixFrom(addr, 128), true
	}
	masked := s.rest
	if n, ok := s.number(10); ok {
		return netip.PrefixFrom(addr, int(int32(n))), 0 <= int32(n) && int32(n) <= 128
	}
	s.rest = masked
	if s.rest == "" || !isIPv6Char(s.rest[0]) {
		s.rest = unmasked
		return netip.PrefixFrom(addr, 128), true
	}
	mask, ok := s.ipv6()
	if !ok {
		return netip.Prefix{}, false
	}
	b := mask.As16()
	u := ir.FromBytes(b[:])
	n := 128 - u.Xor(ir.Ones(128)).BitLen()
	return netip.PrefixFrom(addr, n), u == ir.Ones(128).Shl(128-n)
}

// ipv6 reads an IPv6 address, at most 46 characters. When it reports false it may have moved.
func (s *scanner) ipv6() (netip.Addr, bool) {
	n := 0
	for n < len(s.rest) && n < 46 && isIPv6Char(s.rest[n]) {
		n++
	}
	a, err := netip.ParseAddr(s.rest[:n])
	s.rest = s.rest[n:]
	return a, err == nil && a.Is6()
}

func isIPv6Char(c byte) bool { return c == ':' || c == '.' || hexDigit(c) < 16 }
