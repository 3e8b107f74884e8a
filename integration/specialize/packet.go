package specialize

import (
	"cmp"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/sb"
)

const (
	etherTypeIPv4, etherTypeARP, etherTypeIPv6 = 0x0800, 0x0806, 0x86dd

	protoICMP, protoTCP, protoUDP, protoICMPv6, protoSCTP = 1, 6, 17, 58, 132

	genevePort = 6081
)

// An endpoint is who has addresses: a logical port, here, elsewhere or of a router.
type endpoint struct {
	dp     *sb.Datapath
	key    uint32
	mac    ir.U128
	v4, v6 []ir.U128
	port   *topology.Port // nil: it is not here
	router bool
}

// An arrival is a packet that comes in.
type arrival struct {
	packet eval.Packet
	from   eval.Arrival
	length int
}

// traffic draws packets for a topology.
type traffic struct {
	t         *topology.Topology
	endpoints []endpoint
	here      []endpoint // those among them that have a port
	remote    []endpoint // other workloads
	tunnels   []topology.Tunnel
	// edges are what rules ask of the fields of packets.
	edges        map[ir.Field][]ir.Term
	v4, v6       []ir.U128
	macs         []ir.U128
	vips4, vips6 []ir.U128 // destinations that rules know and nobody has: those of load balancers, for one
}

func newTraffic(t *topology.Topology) *traffic {
	g := &traffic{t: t, edges: map[ir.Field][]ir.Term{}}
	for _, p := range sb.Sorted(t.SB.Ports) {
		dp := t.SB.Datapaths[p.Datapath]
		if dp == nil || t.Local.Datapaths[dp.UUID] == nil {
			continue
		}
		for _, text := range p.MAC {
			if e, ok := parseEndpoint(text); ok {
				e.dp, e.key, e.router = dp, p.Key, p.Type == sb.Patch || p.Type == sb.ChassisRedirect
				if i := slices.IndexFunc(t.Ports, func(q topology.Port) bool { return q.Lport == p.Name }); i >= 0 {
					e.port = &t.Ports[i]
				}
				g.endpoints = append(g.endpoints, e)
			}
		}
	}
	// A port without addresses may send as well.
	for i := range t.Ports {
		p := t.SB.PortByName(t.Ports[i].Lport)
		if !slices.ContainsFunc(g.endpoints, func(e endpoint) bool { return e.port == &t.Ports[i] }) && t.SB.Datapaths[p.Datapath] != nil {
			g.endpoints = append(g.endpoints, endpoint{
				dp: t.SB.Datapaths[p.Datapath], key: p.Key, mac: ir.U64(0x0a0000777700 + uint64(i)), port: &t.Ports[i],
			})
		}
	}
	seen := map[ir.Term]bool{}
	for _, r := range t.Rules() {
		for _, term := range r.Match {
			if isHeader(term.Field) && !seen[term] {
				seen[term] = true
				g.edges[term.Field] = append(g.edges[term.Field], term)
			}
		}
	}
	for _, terms := range g.edges {
		slices.SortFunc(terms, func(a, b ir.Term) int { return cmp.Or(a.Value.Cmp(b.Value), a.Mask.Cmp(b.Mask)) })
	}
	g.v4, g.v6, g.macs = addresses("192.0.2.7 224.0.0.251 255.255.255.255 8.8.8.8"), addresses("2001:db8::7 ff02::1 ff02::1:ff00:1 fe80::1"),
		[]ir.U128{ir.U64(0xffffffffffff), ir.U64(0x333300000001), ir.U64(0x01005e000001), ir.U64(0x0a0000777777)}
	for _, e := range g.endpoints {
		g.v4, g.v6, g.macs = append(g.v4, e.v4...), append(g.v6, e.v6...), append(g.macs, e.mac)
		switch {
		case e.port != nil:
			g.here = append(g.here, e)
		case !e.router:
			g.remote = append(g.remote, e)
		}
	}
	g.vips4, g.vips6 = g.unowned(ir.IPDst, g.v4), g.unowned(ir.IPv6Dst, g.v6)
	for _, x := range t.Tunnels {
		if x.Type == "geneve" {
			g.tunnels = append(g.tunnels, x)
		}
	}
	return g
}

// unowned returns the values of a field that rules ask for as a whole and that are not among owned.
func (g *traffic) unowned(f ir.Field, owned []ir.U128) (all []ir.U128) {
	for _, t := range g.edges[f] {
		if t.Mask == f.Ones() && !slices.Contains(owned, t.Value) {
			all = append(all, t.Value)
		}
	}
	return all
}

func addresses(text string) (all []ir.U128) {
	for a := range strings.FieldsSeq(text) {
		all = append(all, ir.FromBytes(netip.MustParseAddr(a).AsSlice()))
	}
	return all
}

// parseEndpoint reads addresses as Port_Binding.mac has them, those of routers with the length of their prefix.
func parseEndpoint(text string) (e endpoint, ok bool) {
	words := strings.Fields(text)
	if len(words) == 0 {
		return e, false
	}
	mac, err := strconv.ParseUint(strings.ReplaceAll(words[0], ":", ""), 16, 48)
	if err != nil || !strings.Contains(words[0], ":") {
		return e, false // "unknown", for one
	}
	e.mac = ir.U64(mac)
	for _, w := range words[1:] {
		addr, _, _ := strings.Cut(w, "/")
		a, err := netip.ParseAddr(addr)
		switch {
		case err != nil:
		case a.Is4():
			e.v4 = append(e.v4, ir.FromBytes(a.AsSlice()))
		default:
			e.v6 = append(e.v6, ir.FromBytes(a.AsSlice()))
		}
	}
	return e, true
}

// isHeader reports whether f is a field of what is on the wire.
func isHeader(f ir.Field) bool { return f >= ir.EthSrc && f < ir.TunID }

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func oneOf[T any](r *rand.Rand, choices ...T) T { return choices[r.IntN(len(choices))] }

// empty says that nothing can arrive.
func (g *traffic) empty() bool {
	return len(g.here) == 0 && (len(g.tunnels) == 0 || len(g.endpoints) == 0)
}

// draw draws a packet: part of a conversation that makes sense, in which now and then something does not.
func (g *traffic) draw(r *rand.Rand) arrival {
	a := arrival{length: oneOf(r, 100, 100, 100, 1400, 9000)}
	p := &a.packet
	set := func(f ir.Field, v uint64) { p.Set(f, ir.U64(v)) }

	fromTunnel := len(g.tunnels) > 0 && len(g.endpoints) > 0 && (len(g.here) == 0 || r.IntN(3) == 0)
	var src endpoint
	switch {
	case fromTunnel && len(g.remote) > 0 && r.IntN(4) > 0:
		src = pick(r, g.remote)
	case fromTunnel:
		src = pick(r, g.endpoints)
	default:
		src = pick(r, g.here)
	}
	dst := pick(r, g.endpoints)
	if dst.router || dst.mac == src.mac { // less often
		dst = pick(r, g.endpoints)
	}
	if fromTunnel && len(g.here) > 0 && r.IntN(4) > 0 {
		dst = pick(r, g.here)
	}
	p.Set(ir.EthSrc, src.mac)
	p.Set(ir.EthDst, dst.mac)
	if src.dp != dst.dp {
		p.Set(ir.EthDst, g.router(src))
	}
	if fromTunnel {
		x := pick(r, g.tunnels)
		a.from = eval.Arrival{Device: g.t.TunnelDevice.Name, EncDstPort: genevePort}
		set(ir.InPort, uint64(x.OFPort))
		srcField, dstField := ir.TunSrc, ir.TunDst
		if x.Remote.Is6() {
			srcField, dstField = ir.TunIPv6Src, ir.TunIPv6Dst
		}
		p.Set(srcField, ir.FromBytes(x.Remote.AsSlice()))
		p.Set(dstField, ir.FromBytes(x.Local.AsSlice()))
		// What the other chassis has made of it: it knows both ports, or a group.
		dp, in, out := dst.dp, src.key, dst.key
		if src.dp != dst.dp {
			in = pick(r, g.endpoints).key
			if i := slices.IndexFunc(g.endpoints, func(e endpoint) bool { return e.dp == dst.dp && e.router }); i >= 0 {
				in = g.endpoints[i].key
				p.Set(ir.EthSrc, g.endpoints[i].mac)
				p.Set(ir.EthDst, dst.mac)
			}
		}
		switch r.IntN(8) {
		case 0:
			out = oneOf[uint32](r, 0x8000, 0x8001, 0x8002, 0x8003, 0x8004, 0xffff)
		case 1:
			out, in = pick(r, g.endpoints).key, pick(r, g.endpoints).key
		case 2:
			dp = pick(r, g.endpoints).dp
		}
		set(ir.TunID, uint64(dp.Key))
		set(ir.TunMetadata0, uint64(in)<<16|uint64(out))
	} else {
		a.from = eval.Arrival{Device: src.port.Device.Name}
		set(ir.InPort, uint64(src.port.OFPort))
	}
	if r.IntN(20) == 0 {
		set(ir.VLANTCI, 0x1000|oneOf[uint64](r, 0, 1, 11, 12, 77)|r.Uint64N(8)<<13)
	}
	g.payload(r, p, src, dst)
	if r.IntN(4) == 0 {
		g.disturb(r, p)
	}
	return a
}

// sibling makes a packet that differs from another one in one respect.
func (g *traffic) sibling(r *rand.Rand, a *arrival) {
	p := &a.packet
	set := func(f ir.Field, v uint64) { p.Set(f, ir.U64(v)) }
	isIP := p.Value(ir.EthType).Lo != etherTypeARP && !p.Value(ir.IPProto).IsZero()
	switch n := r.IntN(8); {
	case n == 0 && len(g.here) > 0 && a.from.EncDstPort == 0:
		port := pick(r, g.here).port
		a.from.Device = port.Device.Name
		set(ir.InPort, uint64(port.OFPort))
	case n == 0 && a.from.EncDstPort != 0:
		set(ir.TunMetadata0, p.Value(ir.TunMetadata0).Lo^oneOf[uint64](r, 1, 2, 1<<15, 1<<16, 1<<17))
	case n == 1 && isIP:
		set(ir.IPTTL, oneOf[uint64](r, 0, 1, 2, 64))
	case n == 2 && isIP && p.Value(ir.IPFrag).IsZero():
		set(ir.IPFrag, 1)
	case n == 3:
		p.Set(ir.EthDst, pick(r, g.macs))
	case n == 4 && p.Value(ir.VLANTCI).IsZero():
		set(ir.VLANTCI, 0x1000|oneOf[uint64](r, 0, 11))
	default:
		g.disturb(r, p)
	}
}

// router returns the MAC address of a router on the network of e, or some other one.
func (g *traffic) router(e endpoint) ir.U128 {
	// A router's port has its address at the switch's end as well as at its own.
	for _, x := range g.endpoints {
		if !x.router || x.dp == e.dp {
			continue
		}
		for _, a := range x.v4 {
			if len(e.v4) > 0 && a.Shr(8) == e.v4[0].Shr(8) { // all networks are /24 in what makes sense
				return x.mac
			}
		}
	}
	return ir.U64(0x0a0000777777)
}

func (g *traffic) payload(r *rand.Rand, p *eval.Packet, src, dst endpoint) {
	set := func(f ir.Field, v uint64) { p.Set(f, ir.U64(v)) }
	to := func(f ir.Field, vips []ir.U128) {
		if len(vips) > 0 && r.IntN(6) == 0 {
			p.Set(f, pick(r, vips))
		}
	}
	addr := func(list, any []ir.U128) ir.U128 {
		if len(list) == 0 {
			return pick(r, any)
		}
		return pick(r, list)
	}
	n := r.IntN(20)
	switch n {
	case 0:
		set(ir.EthType, etherTypeARP)
		set(ir.ARPOp, 1+r.Uint64N(2))
		p.Set(ir.ARPSPA, addr(src.v4, g.v4))
		p.Set(ir.ARPTPA, addr(dst.v4, g.v4))
		p.Set(ir.ARPSHA, p.Value(ir.EthSrc))
		p.Set(ir.ARPTHA, oneOf(r, ir.U128{}, dst.mac))
		return
	case 1:
		set(ir.EthType, oneOf[uint64](r, 0x88cc, 0x1234, 0x8847))
		return
	}
	set(ir.IPTTL, oneOf[uint64](r, 0, 1, 2, 64, 64, 64, 64, 64, 255))
	set(ir.IPDSCP, oneOf[uint64](r, 0, 0, 0, 10, 46, 63))
	set(ir.IPECN, oneOf[uint64](r, 0, 0, 0, 1, 2, 3))
	icmp := uint64(protoICMP)
	if n < 14 && len(src.v4)+len(dst.v4) > 0 || len(src.v6)+len(dst.v6) == 0 {
		set(ir.EthType, etherTypeIPv4)
		p.Set(ir.IPSrc, addr(src.v4, g.v4))
		p.Set(ir.IPDst, addr(dst.v4, g.v4))
		to(ir.IPDst, g.vips4)
	} else {
		icmp = protoICMPv6
		set(ir.EthType, etherTypeIPv6)
		p.Set(ir.IPv6Src, addr(src.v6, g.v6))
		p.Set(ir.IPv6Dst, addr(dst.v6, g.v6))
		to(ir.IPv6Dst, g.vips6)
		set(ir.IPv6Label, oneOf[uint64](r, 0, 0, 5))
	}
	set(ir.IPProto, oneOf(r, protoTCP, protoTCP, protoTCP, protoUDP, protoUDP, protoSCTP, icmp, icmp, 47))
	if r.IntN(15) == 0 {
		set(ir.IPFrag, oneOf[uint64](r, 1, 3))
	}
	g.transport(r, p)
}

// transport fills in what follows the IP header.
func (g *traffic) transport(r *rand.Rand, p *eval.Packet) {
	const later = 2
	if p.Value(ir.IPFrag).Lo&later != 0 {
		return
	}
	set := func(f ir.Field, v uint64) { p.Set(f, ir.U64(v)) }
	port := func() uint64 { return oneOf[uint64](r, 22, 53, 80, 443, 1024, 1999, 5432, 8080, 40000) }
	switch p.Value(ir.IPProto).Lo {
	case protoTCP:
		set(ir.TCPSrc, port())
		set(ir.TCPDst, port())
		set(ir.TCPFlags, oneOf[uint64](r, 0x02, 0x10, 0x18, 0x04, 0x11))
	case protoUDP:
		set(ir.UDPSrc, port())
		set(ir.UDPDst, port())
	case protoSCTP:
		set(ir.SCTPSrc, port())
		set(ir.SCTPDst, port())
	case protoICMP:
		set(ir.ICMPType, oneOf[uint64](r, 0, 8, 3, 11))
		set(ir.ICMPCode, oneOf[uint64](r, 0, 0, 4))
	case protoICMPv6:
		const solicitation, advertisement = 135, 136
		typ := oneOf[uint64](r, 128, 129, 1, 2, 133, 134, solicitation, advertisement, 143)
		set(ir.ICMPv6Type, typ)
		switch typ {
		case solicitation:
			p.Set(ir.NDSLL, p.Value(ir.EthSrc))
		case advertisement:
			p.Set(ir.NDTLL, p.Value(ir.EthSrc))
		default:
			return
		}
		set(ir.IPTTL, oneOf[uint64](r, 255, 255, 64))
		p.Set(ir.NDTarget, pick(r, g.v6))
	}
}

// disturb gives fields that the packet has values at the edges of what rules ask of them.
func (g *traffic) disturb(r *rand.Rand, p *eval.Packet) {
	var fields []ir.Field
	for f := ir.EthSrc; f < ir.TunID; f++ {
		if len(g.edges[f]) > 0 && has(p, f) {
			fields = append(fields, f)
		}
	}
	for range 1 + r.IntN(3) {
		f := oneOf(r, ir.EthSrc, ir.EthDst)
		if len(fields) > 0 {
			f = pick(r, fields)
		}
		switch f { //nolint:exhaustive // the others are drawn from the edges only
		case ir.EthSrc, ir.EthDst:
			if r.IntN(2) == 0 {
				p.Set(f, pick(r, g.macs))
				continue
			}
		case ir.IPSrc, ir.IPDst:
			if r.IntN(2) == 0 {
				p.Set(f, pick(r, g.v4))
				continue
			}
		case ir.IPv6Src, ir.IPv6Dst:
			if r.IntN(2) == 0 {
				p.Set(f, pick(r, g.v6))
				continue
			}
		}
		if len(fields) == 0 {
			continue
		}
		t := pick(r, g.edges[f])
		v := ir.U128{Hi: r.Uint64(), Lo: r.Uint64()}.And(f.Ones())
		v = v.AndNot(t.Mask).Or(t.Value)
		switch r.IntN(4) {
		case 0: // just beside it
			if low := t.Mask.TrailingZeros(); low < f.Bits() {
				v = v.Xor(ir.U64(1).Shl(low))
			}
		case 1:
			if high := t.Mask.BitLen() - 1; high >= 0 {
				v = v.Xor(ir.U64(1).Shl(high))
			}
		}
		p.Set(f, v)
	}
}

// has reports whether a packet has a field that may be given another value without making another kind of packet of it.
func has(p *eval.Packet, f ir.Field) bool {
	later := p.Value(ir.IPFrag).Lo&2 != 0
	typ, proto, icmp := p.Value(ir.EthType).Lo, p.Value(ir.IPProto).Lo, p.Value(ir.ICMPv6Type).Lo
	isIP := typ == etherTypeIPv4 || typ == etherTypeIPv6
	switch f { //nolint:exhaustive // the others make another kind of packet
	case ir.EthSrc, ir.EthDst:
		return true
	case ir.IPSrc, ir.IPDst:
		return typ == etherTypeIPv4
	case ir.IPv6Src, ir.IPv6Dst:
		return typ == etherTypeIPv6
	case ir.IPDSCP, ir.IPECN, ir.IPTTL:
		return isIP
	case ir.TCPSrc, ir.TCPDst, ir.TCPFlags:
		return isIP && proto == protoTCP && !later
	case ir.UDPSrc, ir.UDPDst:
		return isIP && proto == protoUDP && !later
	case ir.SCTPSrc, ir.SCTPDst:
		return isIP && proto == protoSCTP && !later
	case ir.ICMPType, ir.ICMPCode:
		return typ == etherTypeIPv4 && proto == protoICMP && !later
	case ir.ICMPv6Code:
		return typ == etherTypeIPv6 && proto == protoICMPv6 && !later
	case ir.NDTarget:
		return icmp == 135 || icmp == 136
	case ir.NDSLL:
		return icmp == 135
	case ir.NDTLL:
		return icmp == 136
	case ir.ARPOp, ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA:
		return typ == etherTypeARP
	}
	return false
}
