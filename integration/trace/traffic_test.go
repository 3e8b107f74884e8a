package trace

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
)

var (
	endText  = regexp.MustCompile(`(\S+) ["']?\b([0-9a-f]{2}(?::[0-9a-f]{2}){5})((?: [0-9a-f.:/]+)*)`)
	macText  = regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`)
	ipv4Text = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)
	ipv6Text = regexp.MustCompile(`\bf[de][0-9a-f]{0,2}:[0-9a-f:]*[0-9a-f]`)
)

// An endpoint is a workload or a router port.
type endpoint struct {
	mac    ir.U128
	v4, v6 []ir.U128
	router bool
	port   uint64 // OpenFlow port; 0 if it has none here
}

// near reports whether two endpoints are in the same IPv4 subnet, which are /24 in all contents.
func (e endpoint) near(f endpoint) bool {
	return len(e.v4) > 0 && len(f.v4) > 0 && e.v4[0].Shr(8) == f.v4[0].Shr(8)
}

// A traffic draws packets with the addresses that a content mentions.
type traffic struct {
	rnd          *rand.Rand
	macs, v4, v6 []ir.U128
	endpoints    []endpoint
	ports        []uint64 // OpenFlow ports, those of the content's Local in its order
	tunnels      []uint64
}

func (s single) traffic(rnd *rand.Rand) *traffic {
	s.T.Helper()
	g := &traffic{rnd: rnd, ports: make([]uint64, len(s.content.Local))}
	out, err := s.node.VSctl(s.T.Context(), "--bare", "--columns=name,ofport,type", "list", "interface")
	s.Check(err)
	for row := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		f := strings.Fields(row)
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 16)
		if err != nil {
			continue // it has none
		}
		var i int
		if _, err := fmt.Sscanf(f[0], "v%d", &i); err == nil && i < len(g.ports) {
			g.ports[i] = n
		}
		if f[2] == "geneve" {
			g.tunnels = append(g.tunnels, n)
		}
	}
	text := s.content.NB
	g.macs = append(g.macs, ir.U64(0xffffffffffff), ir.U64(0x333300000001), ir.U64(0x01005e000001), ir.U64(0x0a0000777777))
	mac := func(text string) ir.U128 {
		v, err := strconv.ParseUint(strings.ReplaceAll(text, ":", ""), 16, 48)
		s.Check(err)
		return ir.U64(v)
	}
	for _, m := range macText.FindAllString(text, -1) {
		g.macs = append(g.macs, mac(m))
	}
	addr := func(list *[]ir.U128, text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			*list = append(*list, ir.FromBytes(a.AsSlice()))
		}
	}
	for _, a := range append(ipv4Text.FindAllString(text, -1), "192.0.2.7", "224.0.0.251", "255.255.255.255") {
		addr(&g.v4, a)
	}
	for _, a := range append(ipv6Text.FindAllString(text, -1), "2001:db8::7", "ff02::1", "ff02::1:ff00:1", "fe80::1") {
		addr(&g.v6, a)
	}
	for _, m := range endText.FindAllStringSubmatch(text, -1) {
		e := endpoint{mac: mac(m[2])}
		for a := range strings.FieldsSeq(m[3]) {
			ip, _, isNetwork := strings.Cut(a, "/")
			e.router = e.router || isNetwork
			if strings.Contains(ip, ":") {
				addr(&e.v6, ip)
			} else {
				addr(&e.v4, ip)
			}
		}
		if i := slices.Index(s.content.Local, m[1]); i >= 0 {
			e.port = g.ports[i]
		}
		g.endpoints = append(g.endpoints, e)
	}
	return g
}

func pick[T any](rnd *rand.Rand, list []T) T { return list[rnd.IntN(len(list))] }

// parties draws who sends a packet to whom, and the Ethernet address it is sent to: mostly a workload here to anybody, as its host
// would do it, otherwise anything.
func (g *traffic) parties() (src, dst endpoint, to ir.U128) {
	r := g.rnd
	src = endpoint{mac: pick(r, g.macs), v4: g.v4, v6: g.v6, port: pick(r, g.ports)}
	dst = endpoint{mac: pick(r, g.macs), v4: g.v4, v6: g.v6}
	here := slices.DeleteFunc(slices.Clone(g.endpoints), func(e endpoint) bool { return e.port == 0 })
	if len(here) == 0 || r.IntN(3) == 0 {
		return src, dst, dst.mac
	}
	src, dst = pick(r, here), pick(r, g.endpoints)
	to = dst.mac
	if !src.near(dst) {
		for _, e := range g.endpoints {
			if e.router && e.near(src) {
				to = e.mac
			}
		}
	}
	return src.orAny(g), dst.orAny(g), to
}

// orAny gives an endpoint that lacks addresses all there are.
func (e endpoint) orAny(g *traffic) endpoint {
	if len(e.v4) == 0 {
		e.v4 = g.v4
	}
	if len(e.v6) == 0 {
		e.v6 = g.v6
	}
	return e
}

// packet draws one.
func (g *traffic) packet() map[ir.Field]ir.U128 {
	r := g.rnd
	p := map[ir.Field]ir.U128{}
	set := func(f ir.Field, v uint64) { p[f] = ir.U64(v) }
	src, dst, to := g.parties()
	p[ir.EthSrc], p[ir.EthDst] = src.mac, to
	set(ir.InPort, src.port)
	if len(g.tunnels) > 0 && r.IntN(5) == 0 {
		set(ir.InPort, pick(r, g.tunnels))
		set(ir.TunSrc, 0xac1f0066)
		set(ir.TunDst, 0xac1f0001)
		set(ir.TunID, 1+r.Uint64N(3))
		set(ir.TunMetadata0, (1+r.Uint64N(5))<<16|pick(r, []uint64{1, 2, 3, 0x8000, 0x8001}))
	}
	if r.IntN(10) == 0 {
		set(ir.VLANTCI, 0x1000|r.Uint64N(3))
	}
	set(ir.IPTTL, pick(r, []uint64{1, 2, 64, 64, 64, 255}))
	switch n := r.IntN(10); {
	case n == 0:
		delete(p, ir.IPTTL)
		set(ir.EthType, 0x0806)
		set(ir.ARPOp, 1+r.Uint64N(2))
		p[ir.ARPSPA], p[ir.ARPTPA] = pick(r, src.v4), pick(r, dst.v4)
		p[ir.ARPSHA], p[ir.ARPTHA] = p[ir.EthSrc], pick(r, g.macs)
	case n == 1:
		delete(p, ir.IPTTL)
		set(ir.EthType, 0x88cc)
	case n < 7:
		set(ir.EthType, 0x0800)
		p[ir.IPSrc], p[ir.IPDst] = pick(r, src.v4), pick(r, dst.v4)
		g.transport(p, set, g.icmp)
	default:
		set(ir.EthType, 0x86dd)
		p[ir.IPv6Src], p[ir.IPv6Dst] = pick(r, src.v6), pick(r, dst.v6)
		g.transport(p, set, g.icmpv6)
	}
	return p
}

type setter func(f ir.Field, v uint64)

func (g *traffic) transport(p map[ir.Field]ir.U128, set setter, icmp func(map[ir.Field]ir.U128, setter)) {
	r := g.rnd
	port := func() uint64 { return pick(r, []uint64{22, 53, 80, 443, 1024, 5432, 40000}) }
	switch r.IntN(4) {
	case 0:
		set(ir.IPProto, 6)
		set(ir.TCPSrc, port())
		set(ir.TCPDst, port())
		set(ir.TCPFlags, pick(r, []uint64{0x02, 0x10, 0x04}))
	case 1:
		set(ir.IPProto, 17)
		set(ir.UDPSrc, port())
		set(ir.UDPDst, port())
	case 2:
		set(ir.IPProto, 132)
		set(ir.SCTPSrc, port())
		set(ir.SCTPDst, port())
	case 3:
		icmp(p, set)
	}
}

func (g *traffic) icmp(_ map[ir.Field]ir.U128, set setter) {
	set(ir.IPProto, 1)
	set(ir.ICMPType, pick(g.rnd, []uint64{0, 8, 3}))
}

func (g *traffic) icmpv6(p map[ir.Field]ir.U128, set setter) {
	set(ir.IPProto, 58)
	const solicitation, advertisement = 135, 136
	typ := pick(g.rnd, []uint64{128, 129, 133, solicitation, advertisement})
	set(ir.ICMPv6Type, typ)
	switch typ {
	case solicitation:
		p[ir.NDSLL] = p[ir.EthSrc]
	case advertisement:
		p[ir.NDTLL] = p[ir.EthSrc]
	default:
		return
	}
	set(ir.IPTTL, 255)
	p[ir.NDTarget] = pick(g.rnd, g.v6)
}

// states draws what the connection tracker finds, or of that what is valid: enough for any packet.
func (g *traffic) states(valid bool) []uint32 {
	all := make([]uint32, lookups)
	for i := range all {
		all[i] = eval.StateTrk | pick(g.rnd, []uint32{
			eval.StateNew, eval.StateEst, eval.StateEst, eval.StateEst | eval.StateRpl, eval.StateNew | eval.StateRel, eval.StateInv,
		})
		if valid {
			all[i] = eval.StateTrk | all[i]&(eval.StateNew|eval.StateEst|eval.StateRpl|eval.StateRel)
		}
	}
	return all
}
