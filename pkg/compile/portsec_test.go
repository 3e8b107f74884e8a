package compile

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/offloadd/offloadd/internal/golden"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
	"github.com/offloadd/offloadd/pkg/sb"
)

var goldenRow = sb.UUID{0xc0, 0xff, 0xee, 0x01}

// The rules are those of ovn-controller, byte for byte as ovs-ofctl prints them.
func TestPortSecurityRules(t *testing.T) {
	for _, file := range []string{"testdata/portsec.txt", "testdata/portsec_syntax.txt"} {
		golden.Run(t, file, func(in string) string {
			p := &sb.Port{UUID: goldenRow, Name: "p", Key: 2}
			for line := range strings.SplitSeq(in, "\n") {
				var entry string
				if err := json.Unmarshal([]byte(line), &entry); err != nil {
					return err.Error()
				}
				p.PortSecurity = append(p.PortSecurity, entry)
			}
			var s sink
			return formatGolden(portSecurity(&s, &sb.Datapath{Key: 1}, p), s.rules)
		})
	}
}

// formatGolden returns the errors and then the flows, ordered by table, falling priority and text.
func formatGolden(errs []error, rules []ir.Rule) string {
	var lines []string
	for _, err := range errs {
		lines = append(lines, "error: "+err.Error())
	}
	rules = slices.SortedFunc(slices.Values(rules), func(a, b ir.Rule) int {
		return cmp.Or(cmp.Compare(a.Table, b.Table), cmp.Compare(b.Priority, a.Priority),
			cmp.Compare(openflow.FormatFlow(&a), openflow.FormatFlow(&b)))
	})
	for _, r := range rules {
		lines = append(lines, openflow.FormatFlow(&r))
	}
	return strings.Join(lines, "\n")
}

func TestPortSecurityIsEmptyWithoutEntries(t *testing.T) {
	var s sink
	if errs := portSecurity(&s, &sb.Datapath{Key: 1}, &sb.Port{Name: "p", Key: 2}); errs != nil || s.rules != nil {
		t.Errorf("no port_security: rules %v, errors %v; want none", s.rules, errs)
	}
}

// What the rules say about a packet is what the manual says. The law knows nothing of tables and priorities; random
// ports and packets from small sets of addresses make the two agree or not.
func TestPortSecurityMeansWhatTheManualSays(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	verdicts := map[string]int{}
	hit := map[string]bool{} // by kind of rule, whether a packet met one
	for range 2500 {
		port := randomPort(rnd)
		p := &sb.Port{Name: "p", Key: 5}
		for _, h := range port {
			p.PortSecurity = append(p.PortSecurity, h.entry())
		}
		var s sink
		if errs := portSecurity(&s, &sb.Datapath{Key: 3}, p); errs != nil {
			t.Fatalf("%q: %v", p.PortSecurity, errs)
		}
		m := machine{t, s.rules, make([]bool, len(s.rules))}
		for range 60 {
			pkt := randomPacket(rnd)
			for _, c := range []struct {
				name  string
				table uint8
				port  ir.Field
				law   func(packet) bool
			}{
				{"send", TableInPortSec, ir.Reg14, port.maySend},
				{"receive", TableOutPortSec, ir.Reg15, port.mayReceive},
			} {
				fields := pkt.fields()
				fields[ir.Metadata], fields[c.port] = ir.U64(3), ir.U64(5)
				got, want := !m.drops(c.table, fields), c.law(pkt)
				if got != want {
					t.Fatalf("port_security %q: may %s %+v: rules say %v, the manual %v", p.PortSecurity, c.name, pkt, got, want)
				}
				verdicts[fmt.Sprintf("%s: %v", c.name, got)]++
			}
		}
		for i, r := range s.rules {
			hit[kind(r)] = hit[kind(r)] || m.hit[i]
		}
	}
	t.Log(verdicts)
	for _, v := range []string{"send: true", "send: false", "receive: true", "receive: false"} {
		if verdicts[v] < 1000 {
			t.Errorf("%s: %d packets; the test is too weak", v, verdicts[v])
		}
	}
	for kind, met := range hit {
		if !met {
			t.Errorf("no packet met a rule like %s; the test is too weak", kind)
		}
	}
}

// A machine is a switch that has only the port security tables.
type machine struct {
	t     *testing.T
	rules []ir.Rule
	hit   []bool // by rule, whether a packet met it
}

// drops runs a table and the ones it resubmits to, and returns the bit that check_in_port_sec() and
// check_out_port_sec() give. If several rules apply with the same priority the switch takes any of them; all must say
// the same.
func (m *machine) drops(table uint8, pkt map[ir.Field]ir.U128) bool {
	m.t.Helper()
	var best []int
	for i, r := range m.rules {
		switch {
		case r.Table != table || !satisfies(pkt, r.Match) || best != nil && r.Priority < m.rules[best[0]].Priority:
		case best != nil && r.Priority == m.rules[best[0]].Priority:
			best = append(best, i)
		default:
			best = []int{i}
		}
	}
	var drop bool
	for n, i := range best {
		m.hit[i] = true
		d := m.verdict(m.rules[i], pkt)
		if n > 0 && d != drop {
			m.t.Fatalf("%v applies and so does %v, but their verdicts differ", m.rules[i], m.rules[best[0]])
		}
		drop = d
	}
	return drop
}

func (m *machine) verdict(r ir.Rule, pkt map[ir.Field]ir.U128) (drop bool) {
	m.t.Helper()
	for _, a := range r.Actions {
		switch a := a.(type) {
		case ir.Resubmit:
			drop = m.drops(a.Table, pkt)
		case ir.Set:
			if bit := ir.Bit(ir.Reg10, 12); a.Field != bit.Field || a.Mask != bit.Mask() {
				m.t.Fatalf("%v sets something else than the verdict", r)
			}
			drop = !a.Value.IsZero()
		default:
			m.t.Fatalf("%v has an action that port security does not need", r)
		}
	}
	return drop
}

func satisfies(pkt map[ir.Field]ir.U128, m ir.Match) bool {
	for _, term := range m {
		v, ok := pkt[term.Field]
		if !ok || v.And(term.Mask) != term.Value {
			return false
		}
	}
	return true
}

// kind names rules that differ in addresses only.
func kind(r ir.Rule) string {
	var b strings.Builder
	fmt.Fprintf(&b, "table=%d priority=%d", r.Table, r.Priority)
	for _, term := range r.Match {
		fmt.Fprintf(&b, " %v", term.Field)
		if slices.Contains([]ir.Field{ir.EthType, ir.IPProto, ir.IPTTL, ir.ICMPv6Type}, term.Field) {
			fmt.Fprintf(&b, "=%v", term.Value)
		}
	}
	fmt.Fprintf(&b, " %v", r.Actions)
	return b.String()
}

// A host is one entry of port_security, as the person who wrote it thinks of it.
type host struct {
	mac uint64
	ips []netip.Prefix // with host bits
}

func (h host) entry() string {
	words := []string{mac(h.mac).String()}
	for _, p := range h.ips {
		if p.IsSingleIP() {
			words = append(words, p.Addr().String())
		} else {
			words = append(words, p.String())
		}
	}
	return strings.Join(words, " ")
}

// has reports whether a is one of the host's: "If the host portion is zero, the host is allowed to use any address in
// the subnet. If it is not, the host can only use that address" (ovn-nb(5)).
func (h host) has(a netip.Addr) bool {
	return slices.ContainsFunc(h.ips, func(p netip.Prefix) bool {
		if p.Masked() == p {
			return p.Contains(a)
		}
		return p.Addr() == a
	})
}

func (h host) has4() bool {
	return slices.ContainsFunc(h.ips, func(p netip.Prefix) bool { return p.Addr().Is4() })
}

func (h host) has6() bool {
	return slices.ContainsFunc(h.ips, func(p netip.Prefix) bool { return p.Addr().Is6() })
}

// isOwnLinkLocal reports whether a is fe80::/64 with the host's EUI-64.
func (h host) isOwnLinkLocal(a netip.Addr) bool {
	m := mac(h.mac ^ 0x02_00_00_00_00_00).String()
	return a == netip.MustParseAddr(fmt.Sprintf("fe80::%s%s:%sff:fe%s:%s%s", m[0:2], m[3:5], m[6:8], m[9:11], m[12:14], m[15:17]))
}

type hosts []host

// maySend is the law of check_in_port_sec(): a host speaks for its own addresses, and without addresses of a kind it
// does not speak that kind of IP. A host without any IP addresses speaks for all.
func (p hosts) maySend(pkt packet) bool {
	if pkt.ethType == ethARP {
		return slices.ContainsFunc(p, func(h host) bool {
			return pkt.ethSrc == h.mac && pkt.sha == h.mac && (len(h.ips) == 0 || h.has(pkt.src))
		})
	}
	return slices.ContainsFunc(p, func(h host) bool {
		switch {
		case pkt.ethSrc != h.mac:
			return false
		case len(h.ips) == 0:
			return p.mayAdvertise(pkt)
		case pkt.ethType == ethIPv4 && h.has4():
			return h.has(pkt.src) || pkt.isDHCPRequest()
		case pkt.ethType == ethIPv6 && h.has6():
			if pkt.src == netip.IPv6Unspecified() && netip.MustParsePrefix("ff02::/16").Contains(pkt.dst) &&
				pkt.proto == protoICMPv6 && pkt.code == 0 && slices.Contains([]uint64{131, 135, 143}, pkt.typ) {
				return true // nobody else has the address yet
			}
			return (h.has(pkt.src) || h.isOwnLinkLocal(pkt.src)) && p.mayAdvertise(pkt)
		default:
			return false
		}
	})
}

// mayAdvertise reports whether a packet is no neighbour advertisement or one for an address of the host. OVN 23.03 takes
// for one, or not, more than it should: it drops those for the host's link-local address and those of a host
// without listed IPv6 addresses, and does not look at those that no receiver may accept, with hop limits below 255.
func (p hosts) mayAdvertise(pkt packet) bool {
	if pkt.ethType != ethIPv6 || pkt.proto != protoICMPv6 || pkt.typ != 136 || pkt.ttl != 255 {
		return true
	}
	return slices.ContainsFunc(p, func(h host) bool {
		return h.has6() && pkt.ethSrc == h.mac && pkt.code == 0 && h.has(pkt.target) && (pkt.tll == 0 || pkt.tll == h.mac)
	})
}

// mayReceive is the law of check_out_port_sec(): the entries with the packet's destination are taken together; if
// they list IP addresses, IP packets are for one of those, or for everybody on the link.
func (p hosts) mayReceive(pkt packet) bool {
	found, listed := false, false
	for _, h := range p {
		if pkt.ethDst != h.mac {
			continue
		}
		found, listed = true, listed || len(h.ips) > 0
		switch {
		case pkt.ethType == ethIPv4 && h.has4():
			if h.has(pkt.dst) || pkt.dst.IsMulticast() || pkt.dst == netip.MustParseAddr("255.255.255.255") || h.broadcasts(pkt.dst) {
				return true
			}
		case pkt.ethType == ethIPv6 && h.has6():
			if h.has(pkt.dst) || pkt.dst.IsMulticast() || h.isOwnLinkLocal(pkt.dst) {
				return true
			}
		}
	}
	isIP := pkt.ethType == ethIPv4 || pkt.ethType == ethIPv6
	return found && (!isIP || !listed)
}

// broadcasts reports whether a is the last address of a network in which the host has one address.
func (h host) broadcasts(a netip.Addr) bool {
	return slices.ContainsFunc(h.ips, func(p netip.Prefix) bool {
		return p.Addr().Is4() && p.Masked() != p && p.Contains(a) && !p.Contains(a.Next())
	})
}

// A packet has the fields that port security looks at. In ARP, src and dst are spa and tpa.
type packet struct {
	ethSrc, ethDst, ethType, sha uint64
	src, dst, target             netip.Addr
	proto, ttl, typ, code        uint64
	srcPort, dstPort             uint64
	sll, tll                     uint64
}

func (p packet) isDHCPRequest() bool {
	return p.src == netip.IPv4Unspecified() && p.dst == netip.MustParseAddr("255.255.255.255") &&
		p.proto == protoUDP && p.srcPort == 68 && p.dstPort == 67
}

// fields returns those that the packet has: a match on another field is not satisfied, whatever the value.
func (p packet) fields() map[ir.Field]ir.U128 {
	addr := func(a netip.Addr) ir.U128 { return ir.FromBytes(a.AsSlice()) }
	f := map[ir.Field]ir.U128{
		ir.EthSrc: ir.U64(p.ethSrc), ir.EthDst: ir.U64(p.ethDst), ir.EthType: ir.U64(p.ethType),
	}
	switch p.ethType {
	case ethARP:
		f[ir.ARPSPA], f[ir.ARPTPA], f[ir.ARPSHA] = addr(p.src), addr(p.dst), ir.U64(p.sha)
		return f
	case ethIPv4:
		f[ir.IPSrc], f[ir.IPDst] = addr(p.src), addr(p.dst)
	case ethIPv6:
		f[ir.IPv6Src], f[ir.IPv6Dst] = addr(p.src), addr(p.dst)
	default:
		return f
	}
	f[ir.IPProto], f[ir.IPTTL] = ir.U64(p.proto), ir.U64(p.ttl)
	switch {
	case p.proto == protoUDP:
		f[ir.UDPSrc], f[ir.UDPDst] = ir.U64(p.srcPort), ir.U64(p.dstPort)
	case p.proto == protoICMPv6 && p.ethType == ethIPv6:
		f[ir.ICMPv6Type], f[ir.ICMPv6Code] = ir.U64(p.typ), ir.U64(p.code)
		if p.code == 0 && (p.typ == 135 || p.typ == 136) {
			f[ir.NDTarget] = addr(p.target)
			if p.typ == 135 {
				f[ir.NDSLL] = ir.U64(p.sll)
			} else {
				f[ir.NDTLL] = ir.U64(p.tll)
			}
		}
	}
	return f
}

func pick[T any](rnd *rand.Rand, from ...T) T { return from[rnd.IntN(len(from))] }

var testMACs = []uint64{0x505400000001, 0x505400000001, 0x505400000001, 0x505400000002, 0x02005e0000fe}

func randomPort(rnd *rand.Rand) hosts {
	p := make(hosts, 1+rnd.IntN(3))
	for i := range p {
		p[i].mac = pick(rnd, testMACs...)
		for range pick(rnd, 0, 1, 1, 2, 3) {
			p[i].ips = append(p[i].ips, randomPrefix(rnd, randomAddr(rnd, rnd.IntN(2) == 0)))
		}
	}
	return p
}

func randomPrefix(rnd *rand.Rand, a netip.Addr) netip.Prefix {
	n := a.BitLen()
	p := netip.PrefixFrom(a, pick(rnd, n, n, n-1, n-2, n-3, n-8, 0, rnd.IntN(n+1)))
	if rnd.IntN(2) == 0 {
		return p.Masked()
	}
	return p
}

// randomAddr draws from few addresses, so that a port and a packet often have the same.
func randomAddr(rnd *rand.Rand, v4 bool) netip.Addr {
	if v4 {
		return netip.AddrFrom4(pick(rnd,
			[4]byte{10, 0, 0, byte(rnd.IntN(8))}, [4]byte{10, 0, 0, byte(rnd.IntN(8))}, [4]byte{10, 0, byte(rnd.IntN(2)), 255},
			[4]byte{192, 168, 7, byte(rnd.IntN(4))}, [4]byte{}, [4]byte{255, 255, 255, 255}, [4]byte{224, 0, 0, 1}))
	}
	if rnd.IntN(8) == 0 {
		return mac(pick(rnd, testMACs...)).linkLocal()
	}
	hi := pick(rnd, uint64(0xfd00)<<48, 0xfd00<<48, 0xfd01<<48, 0xff02<<48, 0xff05<<48, 0)
	b := ir.U128{Hi: hi, Lo: uint64(rnd.IntN(4))}.Bytes16()
	return netip.AddrFrom16(b)
}

func randomPacket(rnd *rand.Rand) packet {
	lladdr := func() uint64 { return pick(rnd, append([]uint64{0, 0x505400000003}, testMACs...)...) }
	p := packet{
		ethSrc:  lladdr(),
		ethDst:  lladdr(),
		ethType: pick(rnd, uint64(ethIPv4), ethIPv4, ethIPv6, ethIPv6, ethIPv6, ethARP, 0x88cc),
		sha:     lladdr(), sll: lladdr(), tll: lladdr(),
		proto:   pick(rnd, uint64(protoUDP), protoUDP, protoICMPv6, protoICMPv6, protoICMPv6, 6),
		ttl:     pick(rnd, uint64(255), 255, 225, 64),
		typ:     pick(rnd, uint64(135), 135, 136, 136, 131, 143, 128),
		code:    pick(rnd, uint64(0), 0, 0, 1),
		srcPort: pick(rnd, uint64(68), 67, 53),
		dstPort: pick(rnd, uint64(67), 68, 53),
	}
	p.target = pick(rnd, randomAddr(rnd, false), mac(p.ethSrc).linkLocal())
	p.src, p.dst = randomAddr(rnd, p.ethType != ethIPv6), randomAddr(rnd, p.ethType != ethIPv6)
	switch rnd.IntN(4) {
	case 0, 1:
		p.sha = p.ethSrc
	case 2: // from a host that has no address yet
		if p.ethType == ethIPv6 {
			p.src, p.dst = netip.IPv6Unspecified(), netip.MustParseAddr("ff02::16")
		} else {
			p.src, p.dst = netip.IPv4Unspecified(), netip.MustParseAddr("255.255.255.255")
		}
	}
	return p
}

// Entries come from the Northbound as people write them: whatever they are, nothing panics, what is left over is the
// end of the entry, and the addresses understood are the same when they are written the usual way.
func FuzzParseHostAddrs(f *testing.F) {
	for _, s := range []string{
		"50:54:00:00:00:01", "50:54:00:00:00:01 10.0.0.4/24 fd00::4/64", "0:-1:+2:0x3:4:5 10.0.0.1/255.0.0.0 ::/ffff::",
		"50:54:00:00:00:01 10.0.0.1/33", "50:54:00:00:00:01 10.0.0.1/ fd00::1", "50:54:00:00:00:01 ::ffff:10.0.0.1/120",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		a, rest, ok := parseHostAddrs(s)
		if !strings.HasSuffix(s, rest) {
			t.Fatalf("parseHostAddrs(%q) leaves %q", s, rest)
		}
		if !ok {
			return
		}
		usual := a.mac.String()
		for _, p := range slices.Concat(a.ipv4, a.ipv6) {
			if !p.IsValid() {
				t.Fatalf("parseHostAddrs(%q) = %v", s, a)
			}
			usual += " " + p.String()
		}
		b, rest, ok := parseHostAddrs(usual)
		if !ok || rest != "" || a.mac != b.mac || !slices.Equal(a.ipv4, b.ipv4) || !slices.Equal(a.ipv6, b.ipv6) {
			t.Fatalf("parseHostAddrs(%q) = %v, but for %q %v, %q, %v", s, a, usual, b, rest, ok)
		}
	})
}
