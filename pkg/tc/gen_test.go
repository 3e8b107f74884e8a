package tc

import (
	"math/rand/v2"
	"net/netip"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

// gen makes random filters that pass Check.
type gen struct {
	*rand.Rand
	devices []int
	indev   []string

	// tc leaves out what tc(8) of iproute2 6.1 has no words for, kernel what needs hardware or a kernel newer than 6.1.
	tc, kernel bool

	// show leaves out what tc(8) of iproute2 6.1 cannot print: addresses of IPv6 with masks that are no prefixes overflow its
	// buffer ("stack smashing detected").
	show bool
}

func newGen(t testing.TB) *gen {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return &gen{Rand: rand.New(rand.NewPCG(seed, 0)), devices: []int{1}, indev: []string{"lo"}}
}

func pick[T any](g *gen, of ...T) T { return of[g.IntN(len(of))] }

func (g *gen) coin(n int) bool { return g.IntN(n) == 0 }

func (g *gen) u128(bits int) ir.U128 {
	return ir.U128{Hi: g.Uint64(), Lo: g.Uint64()}.And(ir.Ones(bits))
}

// mask is whole, a prefix, or anything but 0.
func (g *gen) mask(bits int) ir.U128 {
	switch g.IntN(4) {
	case 0:
		n := 1 + g.IntN(bits)
		return ir.Ones(n).Shl(bits - n)
	case 1:
		if !g.tc && (!g.show || bits != 128) || bits <= 48 && bits != 32 {
			if m := g.u128(bits); !m.IsZero() {
				return m
			}
		}
	}
	return ir.Ones(bits)
}

func (g *gen) addr4() netip.Addr { return netip.AddrFrom4([4]byte(u128Bytes(g.u128(32), 4, false))) }
func (g *gen) addr6() netip.Addr { return netip.AddrFrom16(g.u128(127).Bytes16()) }

// filter returns a filter of the given key.
func (g *gen) filter(k Key) Filter {
	for {
		f := Filter{Chain: k.Chain, Pref: k.Pref, Handle: k.Handle}
		g.match(&f)
		g.actions(&f)
		if g.coin(2) {
			for i := range f.Cookie {
				f.Cookie[i] = byte(g.Uint32())
			}
		}
		switch g.IntN(8) {
		case 0:
			f.Flags = SkipHW
		case 1:
			if !g.kernel {
				f.Flags = SkipSW
			}
		case 2:
			f.Flags = Verbose
		}
		if f.Check() == nil {
			return f
		}
	}
}

// term adds a condition, one time in n.
func (g *gen) term(f *Filter, n int, field ir.Field) {
	if g.coin(n) {
		mask := g.mask(field.Bits())
		f.Match, _ = f.Match.With(field, g.u128(128), mask)
	}
}

func (g *gen) match(f *Filter) {
	f.Protocol = pick[uint16](g, ProtocolAll, ProtocolIPv4, ProtocolIPv4, ProtocolIPv4, ProtocolIPv6, ProtocolIPv6, ProtocolARP, ProtocolVLAN, ProtocolQinQ)
	if g.coin(6) {
		f.Indev = pick(g, g.indev...)
	}
	switch f.Protocol {
	case ProtocolAll:
		if g.coin(3) {
			f.Match = f.Match.Masked(ir.VLANTCI, 0, vlanPresent)
		}
	case ProtocolVLAN, ProtocolQinQ:
		mask := pick[uint64](g, 0, 0x1fff, 0xf000, 0xffff)
		if mask != 0 {
			f.Match = f.Match.Masked(ir.VLANTCI, g.Uint64()|vlanPresent, mask)
		}
		if g.coin(2) {
			f.Match = f.Match.Eq(ir.EthType, pick[uint64](g, ProtocolIPv4, ProtocolIPv6, ProtocolARP, 0x88cc))
		}
	}
	g.term(f, 3, ir.EthSrc)
	g.term(f, 3, ir.EthDst)
	var proto uint64
	switch f.etherType() {
	case ProtocolIPv4:
		g.term(f, 3, ir.IPSrc)
		g.term(f, 3, ir.IPDst)
		proto = pick[uint64](g, 0, 1, 6, 17, 132, 47)
	case ProtocolIPv6:
		g.term(f, 3, ir.IPv6Src)
		g.term(f, 3, ir.IPv6Dst)
		proto = pick[uint64](g, 0, 58, 6, 17, 132, 47)
	case ProtocolARP:
		g.term(f, 2, ir.ARPSPA)
		g.term(f, 2, ir.ARPTPA)
		g.term(f, 2, ir.ARPSHA)
		g.term(f, 2, ir.ARPTHA)
		if g.coin(2) {
			op := g.IntN(256)
			if g.tc {
				op = g.IntN(3)
			}
			f.Match = f.Match.Masked(ir.ARPOp, uint64(op), pick[uint64](g, 0xffff, 0xff01))
		}
	}
	if typ := f.etherType(); typ == ProtocolIPv4 || typ == ProtocolIPv6 {
		g.term(f, 6, ir.IPDSCP)
		g.term(f, 6, ir.IPECN)
		g.term(f, 4, ir.IPTTL)
		if g.coin(4) {
			x := pick(g, frags...)
			f.Match = f.Match.Masked(ir.IPFrag, x.value, x.mask)
		}
		if g.coin(3) {
			g.ctMatch(f)
		}
	}
	if proto != 0 {
		f.Match = f.Match.Eq(ir.IPProto, proto)
	}
	switch proto {
	case 1:
		g.term(f, 2, ir.ICMPType)
		g.term(f, 2, ir.ICMPCode)
	case 6:
		g.term(f, 2, ir.TCPSrc)
		g.term(f, 2, ir.TCPDst)
		g.term(f, 3, ir.TCPFlags)
	case 17:
		g.term(f, 2, ir.UDPSrc)
		g.term(f, 2, ir.UDPDst)
	case 58:
		g.term(f, 2, ir.ICMPv6Type)
		g.term(f, 2, ir.ICMPv6Code)
	case 132:
		g.term(f, 2, ir.SCTPSrc)
		g.term(f, 2, ir.SCTPDst)
	}
	if g.coin(4) {
		g.tunnelMatch(f)
	}
}

func (g *gen) ctMatch(f *Filter) {
	if g.coin(2) {
		mask := uint64(1 + g.IntN(63))
		f.Match = f.Match.Masked(ir.CTState, g.Uint64()|stateTrk, mask)
	}
	g.term(f, 2, ir.CTZone)
	g.term(f, 2, ir.CTMark)
	if g.coin(2) {
		mask := g.u128(128)
		f.Match, _ = f.Match.With(ir.CTLabel, g.u128(128), pick(g, mask, ir.Ones(128)))
	}
}

func (g *gen) tunnelMatch(f *Filter) {
	if g.coin(3) {
		g.term(f, 2, ir.TunIPv6Src)
		g.term(f, 1, ir.TunIPv6Dst)
	} else {
		g.term(f, 2, ir.TunSrc)
		g.term(f, 1, ir.TunDst)
	}
	if g.coin(2) {
		f.Match = f.Match.Eq(ir.TunID, uint64(g.IntN(1<<24)))
	}
	if g.coin(2) {
		f.EncDstPort = pick[uint16](g, 6081, 4789, uint16(1+g.IntN(65535)))
	}
	if g.coin(2) {
		f.Match = f.Match.Masked(ir.TunMetadata0, g.Uint64(), pick[uint64](g, 0x7fffffff, 0xffff, 0xffffffff, g.Uint64()|1))
	}
}

func (g *gen) actions(f *Filter) {
	add := func(a Action) { f.Actions = append(f.Actions, a) }
	typ := f.etherType()
	ip := typ == ProtocolIPv4 || typ == ProtocolIPv6
	if ip && g.coin(2) {
		add(g.ct(typ == ProtocolIPv6))
	}
	if g.coin(3) {
		add(SkbEdit{MarkMask: ^uint32(0), Mark: g.Uint32()})
	} else if g.coin(4) {
		m := g.Uint32()
		add(pick[Action](g, SkbEdit{Host: true}, SkbEdit{Mark: g.Uint32() & m, MarkMask: m, Host: true}))
	}
	if g.coin(5) {
		add(TunnelUnset{})
	}
	if g.coin(2) {
		g.edits(f)
	}
	if g.coin(4) {
		add(pick[Action](g, VLAN{Op: VLANPop}, VLAN{VLANPush, uint16(g.IntN(4096)), uint8(g.IntN(8)), ProtocolVLAN},
			VLAN{VLANPush, uint16(g.IntN(4096)), 0, ProtocolQinQ}, VLAN{VLANModify, uint16(g.IntN(4096)), uint8(g.IntN(8)), ProtocolVLAN}))
	}
	if g.coin(4) {
		add(Mirred{Ifindex: pick(g, g.devices...), Mirror: true, Ingress: g.coin(3)})
	}
	if g.coin(4) {
		add(g.tunnel())
	}
	add(pick[Action](g, Pass{}, Drop{}, Goto{uint32(g.IntN(MaxChain + 1))}, Mirred{Ifindex: pick(g, g.devices...)},
		Mirred{Ifindex: pick(g, g.devices...), Ingress: true}, Trap{}))
}

func (g *gen) ct(v6 bool) CT {
	addr := g.addr4
	if v6 {
		addr = g.addr6
	}
	c := CT{Zone: uint16(g.IntN(65536))}
	switch g.IntN(6) {
	case 0:
		return CT{Clear: true}
	case 1:
		c.NAT = true
	case 2, 3, 4:
		c.Commit, c.Force = true, g.coin(3)
		if g.coin(2) {
			c.MarkMask = pick(g, ^uint32(0), g.Uint32()|1)
			c.Mark = g.Uint32() & c.MarkMask
		}
		if g.coin(2) {
			c.LabelMask = pick(g, ir.Ones(128), g.u128(128))
			c.Label = g.u128(128).And(c.LabelMask)
		}
		if g.coin(2) {
			c.NAT, c.Src = true, g.coin(2)
			c.Dst = !c.Src
			c.AddrMin = addr()
			c.AddrMax = pick(g, c.AddrMin, addr())
			if g.tc && v6 {
				c.AddrMax = c.AddrMin // tc cuts arguments after 63 characters
			}
			if c.AddrMax.Less(c.AddrMin) {
				c.AddrMin, c.AddrMax = c.AddrMax, c.AddrMin
			}
			if g.coin(2) {
				c.PortMin = uint16(1 + g.IntN(60000))
				c.PortMax = c.PortMin + uint16(g.IntN(3))
			}
		}
	}
	return c
}

// edits adds a pedit and the checksums that it breaks.
func (g *gen) edits(f *Filter) {
	fields := []ir.Field{ir.EthDst, ir.EthSrc}
	typ := f.etherType()
	proto, _ := f.exact(ir.IPProto)
	switch typ {
	case ProtocolIPv4:
		fields = append(fields, ir.IPTTL, ir.IPDSCP)
		if proto != 0 {
			fields = append(fields, ir.IPSrc, ir.IPDst)
		}
	case ProtocolIPv6:
		fields = append(fields, ir.IPTTL, ir.IPDSCP)
		if proto != 0 {
			fields = append(fields, ir.IPv6Src, ir.IPv6Dst)
		}
	}
	switch proto {
	case 6:
		fields = append(fields, ir.TCPSrc, ir.TCPDst)
	case 17:
		fields = append(fields, ir.UDPSrc, ir.UDPDst)
	}
	g.Shuffle(len(fields), func(i, j int) { fields[i], fields[j] = fields[j], fields[i] })
	var p Pedit
	tuples := false
	for _, field := range fields[:1+g.IntN(len(fields))] {
		e := Edit{Field: field, Mask: ir.Ones(field.Bits())}
		if g.coin(3) && (!g.tc || field.Bits() <= 32 && field != ir.IPDSCP) {
			e.Mask = g.mask(field.Bits())
		}
		e.Value = g.u128(128).And(e.Mask)
		if field == ir.IPTTL && g.coin(2) {
			e = Edit{Field: field, Value: ir.U64(0xff), Mask: ir.Ones(8), Add: true}
		}
		tuples = tuples || tuple(field)
		p.Edits = append(p.Edits, e)
	}
	if tuples {
		// A lookup before would make the filter one that Check refuses.
		f.Actions = []Action{CT{Clear: true}}
	}
	f.Actions = append(f.Actions, p, CSum{IPv4: true, TCP: proto == 6, UDP: proto == 17, ICMP: proto == 58, SCTP: g.coin(9), IGMP: g.coin(9), UDPLite: g.coin(9)})
}

func (g *gen) tunnel() TunnelSet {
	addr := g.addr4
	if g.coin(3) {
		addr = g.addr6
	}
	a := TunnelSet{ID: uint32(g.IntN(1 << 24)), Src: addr(), Dst: addr(), TTL: pick[uint8](g, 0, 64, 255), TOS: pick[uint8](g, 0, 0xb8), NoCSum: g.coin(2)}
	if g.coin(2) {
		a.DstPort = uint16(1 + g.IntN(65535))
	}
	if !g.tc && !g.kernel {
		a.NoFrag = g.coin(4)
	}
	for range g.IntN(3) {
		data := make([]byte, 4*(1+g.IntN(3)))
		for i := range data {
			data[i] = byte(g.Uint32())
		}
		a.Options = append(a.Options, GeneveOption{pick(g, OptionClass, uint16(g.Uint32()|1)), OptionType, string(data)})
	}
	return a
}
