package openflow

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
)

// newRand returns a generator whose seed is logged.
func newRand(t testing.TB) *rand.Rand {
	t.Helper()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// gen makes rules that Open vSwitch accepts: prerequisites of matches and actions are met. The groups and meters
// that actions use have the numbers 1..3.
type gen struct {
	*rand.Rand
	// noOptions leaves out tun_metadata: Open vSwitch does not apply its TLV table to the actions of groups.
	noOptions bool
}

func (g gen) bits(n int) ir.U128 { return ir.U128{Hi: g.Uint64(), Lo: g.Uint64()}.And(ir.Ones(n)) }

func (g gen) oneIn(n int) bool { return g.IntN(n) == 0 }

func pick[T any](g gen, of ...T) T { return of[g.IntN(len(of))] }

// mask returns a mask of f: mostly all of it, else a prefix or anything but nothing.
func (g gen) mask(f ir.Field) ir.U128 {
	n := f.Bits()
	switch g.IntN(4) {
	case 0:
		if m := g.bits(n); !m.IsZero() {
			return m
		}
	case 1:
		k := 1 + g.IntN(n)
		return ir.Ones(k).Shl(n - k)
	}
	return f.Ones()
}

// maskable are the fields that OpenFlow 1.5 can match bitwise in Open vSwitch, of those that any packet has.
var metaFields = func() []ir.Field {
	fs := []ir.Field{
		ir.TunID, ir.TunSrc, ir.TunDst, ir.TunIPv6Src, ir.TunIPv6Dst, ir.PktMark, ir.CTState, ir.CTMark, ir.CTLabel,
		ir.Metadata, ir.TunMetadata0, ir.TunMetadata0 + 1, ir.TunMetadata0 + 63,
	}
	for f := ir.Reg0; f <= ir.Reg15; f++ {
		fs = append(fs, f)
	}
	return fs
}()

// testTLVs are the options of the tun_metadata fields in use. Index 0 is OVN's.
var testTLVs = []TLV{{0x102, 0x80, 4, 0}, {0x102, 0x81, 4, 1}, {0xffff, 0, 4, 63}}

// match returns a match that needs no correction by a switch.
func (g gen) match() ir.Match {
	var m ir.Match
	eq := func(f ir.Field, v uint64) { m = m.Eq(f, v) }
	set := func(f ir.Field, v, k ir.U128) {
		if n, ok := m.With(f, v, k); ok {
			m = n
		}
	}
	masked := func(fs ...ir.Field) {
		for _, f := range fs {
			if g.oneIn(3) {
				set(f, g.bits(f.Bits()), g.mask(f))
			}
		}
	}
	whole := func(fs ...ir.Field) {
		for _, f := range fs {
			if g.oneIn(4) {
				set(f, g.bits(f.Bits()), f.Ones())
			}
		}
	}
	for range g.IntN(4) {
		f := pick(g, metaFields...)
		k := g.mask(f)
		if f == ir.CTState {
			k = k.And(ir.Ones(8))
		}
		set(f, g.bits(f.Bits()), k)
	}
	if g.oneIn(4) {
		eq(ir.InPort, pick(g, uint64(g.IntN(0xff00)), 0xfffe, 0xfffd, 0xffff))
	}
	if g.oneIn(8) {
		eq(ir.TunFlags, uint64(g.IntN(2)))
		m = m.Masked(ir.TunFlags, uint64(g.IntN(2)), 1)
	}
	whole(ir.CTZone, ir.ConjID)
	if g.oneIn(3) {
		return m
	}
	masked(ir.EthSrc, ir.EthDst)
	if g.oneIn(4) {
		tci := g.Uint64() | 0x1000
		m = m.Masked(ir.VLANTCI, tci, pick(g, uint64(0x1000), 0x1fff, 0xffff, 0xf000, 0x1000|g.Uint64()&0x1fff))
	} else if g.oneIn(8) {
		m = m.Masked(ir.VLANTCI, 0, pick(g, uint64(0x1000), 0x1fff))
	}
	switch g.IntN(5) {
	case 0:
		if g.oneIn(2) {
			eq(ir.EthType, pick(g, uint64(0x88cc), 0x8847, 0x8848, 0x894f, 0x0600))
		}
	case 1:
		eq(ir.EthType, pick(g, uint64(etherTypeARP), etherTypeARP, etherTypeRARP))
		if g.oneIn(2) {
			eq(ir.ARPOp, uint64(1+g.IntN(255)))
		}
		masked(ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA)
	default:
		v6 := g.oneIn(2)
		if v6 {
			eq(ir.EthType, etherTypeIPv6)
			masked(ir.IPv6Src, ir.IPv6Dst, ir.IPv6Label)
		} else {
			eq(ir.EthType, etherTypeIPv4)
			masked(ir.IPSrc, ir.IPDst)
		}
		whole(ir.IPDSCP, ir.IPECN, ir.IPTTL)
		if g.oneIn(5) {
			m = m.Masked(ir.IPFrag, g.Uint64(), pick(g, uint64(1), 2, 3))
			if t, _ := m.Term(ir.IPFrag); t.Mask.Lo == 3 && t.Value.Lo == 2 {
				eq(ir.IPFrag, 3) // a later fragment is a fragment
			}
		}
		if g.oneIn(4) {
			m = m.Masked(ir.CTState, 0x22|g.Uint64()&^0x10, 0x22|g.Uint64()&0xff) // tracked and established
			if v6 {
				masked(ir.CTIPv6Src, ir.CTIPv6Dst)
			} else {
				masked(ir.CTNWSrc, ir.CTNWDst)
			}
			if g.oneIn(2) {
				eq(ir.CTNWProto, pick(g, uint64(protoTCP), protoUDP))
				masked(ir.CTTPSrc, ir.CTTPDst)
			}
		}
		if g.oneIn(5) {
			return m
		}
		later, _ := m.Term(ir.IPFrag)
		switch {
		case later.Value.Lo&2 != 0: // no transport header
			eq(ir.IPProto, pick(g, uint64(protoTCP), 47))
		case g.oneIn(4):
			eq(ir.IPProto, protoTCP)
			masked(ir.TCPSrc, ir.TCPDst, ir.TCPFlags)
		case g.oneIn(3):
			eq(ir.IPProto, protoUDP)
			masked(ir.UDPSrc, ir.UDPDst)
		case g.oneIn(3):
			eq(ir.IPProto, protoSCTP)
			masked(ir.SCTPSrc, ir.SCTPDst)
		case !v6:
			eq(ir.IPProto, protoICMP)
			whole(ir.ICMPType, ir.ICMPCode)
		case g.oneIn(3):
			eq(ir.IPProto, protoICMPv6)
			whole(ir.ICMPv6Type, ir.ICMPv6Code)
		default:
			eq(ir.IPProto, protoICMPv6)
			eq(ir.ICMPv6Type, 135)
			eq(ir.ICMPv6Code, 0)
			masked(ir.NDTarget, ir.NDSLL)
			if g.oneIn(2) {
				eq(ir.ICMPv6Type, 136)
				m = without(m, ir.NDSLL)
				masked(ir.NDTLL)
			}
		}
	}
	return m
}

func without(m ir.Match, f ir.Field) ir.Match {
	var out ir.Match
	for _, t := range m {
		if t.Field != f {
			out = append(out, t)
		}
	}
	return out
}

// settable are the fields that actions may write when a packet satisfies m.
func settable(m ir.Match) []ir.Field {
	fs := []ir.Field{
		ir.Reg0, ir.Reg5, ir.Reg15, ir.XReg0, ir.XReg7, ir.XXReg0, ir.XXReg3, ir.Metadata, ir.TunID, ir.TunSrc, ir.TunDst,
		ir.TunIPv6Src, ir.TunIPv6Dst, ir.TunMetadata0, ir.TunMetadata0 + 63, ir.PktMark, ir.EthSrc, ir.EthDst,
		ir.InPort,
	}
	val := func(f ir.Field) uint64 { t, _ := m.Term(f); return t.Value.Lo }
	switch val(ir.EthType) {
	case etherTypeIPv4:
		fs = append(fs, ir.IPSrc, ir.IPDst, ir.IPTTL, ir.IPDSCP, ir.IPECN)
	case etherTypeIPv6:
		fs = append(fs, ir.IPv6Src, ir.IPv6Dst, ir.IPTTL, ir.IPv6Label)
	case etherTypeARP:
		fs = append(fs, ir.ARPOp, ir.ARPSPA, ir.ARPTPA, ir.ARPSHA, ir.ARPTHA)
	}
	if val(ir.VLANTCI)&0x1000 != 0 {
		fs = append(fs, ir.VLANTCI)
	}
	if val(ir.IPFrag)&2 == 0 {
		switch val(ir.IPProto) {
		case protoTCP:
			fs = append(fs, ir.TCPSrc, ir.TCPDst)
		case protoUDP:
			fs = append(fs, ir.UDPSrc, ir.UDPDst)
		case protoSCTP:
			fs = append(fs, ir.SCTPSrc, ir.SCTPDst)
		case protoICMP:
			fs = append(fs, ir.ICMPType, ir.ICMPCode)
		case protoICMPv6:
			fs = append(fs, ir.ICMPv6Type, ir.ICMPv6Code)
			if val(ir.ICMPv6Type) == 135 {
				fs = append(fs, ir.NDTarget, ir.NDSLL)
			}
			if val(ir.ICMPv6Type) == 136 {
				fs = append(fs, ir.NDTarget, ir.NDTLL)
			}
		}
	}
	return fs
}

func (g gen) sub(f ir.Field) ir.Sub {
	if g.oneIn(2) || f.Bits() == 1 {
		return ir.Whole(f)
	}
	n := 1 + g.IntN(f.Bits())
	return ir.Sub{Field: f, Ofs: g.IntN(f.Bits() - n + 1), N: n}
}

// setWhole are the fields that can only be set as a whole.
var setWhole = []ir.Field{
	ir.IPTTL, ir.IPDSCP, ir.IPECN, ir.ARPOp, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code, ir.InPort,
}

// set returns an action that writes f.
func (g gen) set(f ir.Field) ir.Set {
	k := g.mask(f)
	if slices.Contains(setWhole, f) {
		k = f.Ones()
	}
	v := g.bits(f.Bits())
	if f == ir.ARPOp {
		v = v.And(ir.Ones(8))
	}
	if f == ir.InPort {
		v = ir.U64(uint64(g.IntN(0xff00)))
	}
	return ir.Set{Field: f, Value: v.And(k), Mask: k}
}

// actions returns a list that is consistent with m.
func (g gen) actions(m ir.Match, depth int) []ir.Action {
	var out []ir.Action
	fs := settable(m)
	if g.noOptions {
		fs = slices.DeleteFunc(fs, ir.Field.IsTunMetadata)
	}
	vlan, _ := m.Term(ir.VLANTCI)
	eth, _ := m.Term(ir.EthType)
	isIP := eth.Value.Lo == etherTypeIPv4 || eth.Value.Lo == etherTypeIPv6
	state, _ := m.Term(ir.CTState)
	proto, _ := m.Term(ir.IPProto)
	if depth == 0 && g.oneIn(20) {
		for range 1 + g.IntN(3) {
			out = append(out, ir.Conjunction{ID: g.Uint32(), Clause: uint8(g.IntN(2)), N: uint8(2 + g.IntN(3))})
		}
		return out
	}
	for range g.IntN(5) {
		var a ir.Action
		switch g.IntN(22) {
		case 0:
			a = ir.Output{Port: pick(g, uint32(1+g.IntN(0xfeff)), 0xfffe, 0xfff8, 0xfffd, 0xfffa)}
		case 1:
			a = ir.Resubmit{Table: uint8(g.IntN(255))}
		case 2:
			s := ir.Sub{Field: pick(g, fs...)}
			d := ir.Sub{Field: pick(g, ir.XXReg0, ir.XXReg3, ir.XReg2, ir.Reg1)}
			n := 1 + g.IntN(min(s.Field.Bits(), d.Field.Bits()))
			s.N, d.N = n, n
			s.Ofs, d.Ofs = g.IntN(s.Field.Bits()-n+1), g.IntN(d.Field.Bits()-n+1)
			if s.Field == d.Field {
				continue
			}
			a = ir.Move{Src: s, Dst: d}
		case 3:
			a = ir.Push{Sub: g.sub(pick(g, fs...))}
		case 4:
			f := pick(g, fs...)
			if g.set(f).Mask == f.Ones() && f == ir.IPTTL {
				a = ir.Pop{Sub: ir.Whole(f)}
			} else {
				a = ir.Pop{Sub: ir.Whole(pick(g, ir.Reg3, ir.EthSrc, ir.XXReg1))}
			}
		case 5:
			if vlan.Value.Lo&0x1000 == 0 || len(out) > 0 {
				continue
			}
			out = append(out, ir.StripVLAN{})
			return out // what follows may need the tag
		case 6:
			if eth.Value.Lo == 0x8847 || depth > 0 {
				continue
			}
			a = ir.PushVLAN{EtherType: pick(g, uint16(0x8100), 0x88a8)}
			return append(out, a)
		case 7:
			if !isIP {
				continue
			}
			a = ir.DecTTL{}
		case 8:
			a = ir.CTClear{}
		case 9, 10:
			if !isIP || depth > 2 {
				continue
			}
			c := g.ct(eth.Value.Lo == etherTypeIPv6, proto.Value.Lo)
			if c.Commit && state.Value.Lo&0x10 != 0 {
				continue // invalid packets cannot be committed
			}
			a = c
		case 11:
			if depth > 2 {
				continue
			}
			a = ir.Clone{Actions: g.actions(m, depth+1)}
		case 12:
			a = ir.Group{ID: uint32(1 + g.IntN(3))}
		case 13:
			c := ir.Controller{MaxLen: pick(g, uint16(0xffff), 0xffff, uint16(g.Uint32())), Pause: g.oneIn(2)}
			if g.oneIn(3) {
				c.ControllerID = uint16(g.Uint32())
			}
			for range g.IntN(20) {
				c.UserData = append(c.UserData, byte(g.Uint32()))
			}
			if g.oneIn(3) {
				c.MeterID = uint32(1 + g.IntN(3))
			}
			a = c
		case 14:
			a = g.learn(m)
		case 15:
			if depth > 0 || len(out) > 0 {
				continue
			}
			a = ir.Meter{ID: uint32(1 + g.IntN(3))}
		case 16:
			a = ir.SetQueue{ID: g.Uint32()}
		case 17:
			a = ir.CheckPktLarger{Len: uint16(g.Uint32()), Dst: ir.Bit(pick(g, ir.Reg7, ir.XXReg1), g.IntN(32))}
		case 18:
			a = ir.Sample{
				Probability: uint16(1 + g.IntN(0xffff)), CollectorSet: g.Uint32(), ObsDomain: g.Uint32(), ObsPoint: g.Uint32(),
				SamplingPort: pick(g, uint16(samplePortNone), uint16(g.IntN(0xff00))),
			}
		case 19:
			b := ir.Bundle{Basis: uint16(g.Uint32())}
			for range g.IntN(6) {
				b.Members = append(b.Members, uint16(1+g.IntN(0xfeff)))
			}
			a = b
		case 20:
			n := ir.Note{Data: make([]byte, 6+8*g.IntN(3))}
			for i := range n.Data {
				n.Data[i] = byte(g.Uint32())
			}
			a = n
		default:
			a = g.set(pick(g, fs...))
		}
		out = append(out, a)
	}
	return out
}

func (g gen) ct(v6 bool, proto uint64) ir.CT {
	c := ir.CT{Commit: g.oneIn(2), Table: pick(g, uint8(ir.NoTable), uint8(g.IntN(255))), Zone: pick(g, 0, uint16(g.Uint32()))}
	if g.oneIn(2) {
		c.Zone, c.ZoneFrom = 0, ir.Sub{Field: pick(g, ir.Reg13, ir.Reg11), Ofs: pick(g, 0, 16), N: 16}
	}
	c.Force = c.Commit && g.oneIn(2)
	switch proto {
	case protoTCP:
		c.Alg = pick(g, uint16(0), 21)
	case protoUDP:
		c.Alg = pick(g, uint16(0), 69)
	}
	if g.oneIn(2) {
		c.NAT = &ir.NAT{}
		if c.Commit && g.oneIn(2) {
			n := c.NAT
			n.Src = g.oneIn(2)
			n.Dst = !n.Src
			size := 32
			if v6 {
				size, n.IPv6 = 128, true
			}
			n.AddrMin = g.bits(size - 1).Or(ir.U64(1))
			if g.oneIn(2) {
				n.AddrMax = n.AddrMin.Or(ir.U64(0xff))
			}
			if g.oneIn(2) {
				n.PortMin = uint16(1 + g.IntN(0xff00))
				if g.oneIn(2) {
					n.PortMax = n.PortMin | 0xff
				}
			}
			n.Persistent, n.ProtoHash = g.oneIn(2), g.oneIn(3)
			n.ProtoRandom = !n.ProtoHash && g.oneIn(2)
		}
	}
	if c.Commit {
		for range g.IntN(3) {
			if g.oneIn(3) {
				c.Exec = append(c.Exec, ir.Move{Src: ir.Whole(ir.Reg3), Dst: ir.Sub{Field: ir.CTLabel, Ofs: 32 * g.IntN(4), N: 32}})
			} else {
				f := pick(g, ir.CTMark, ir.CTLabel)
				c.Exec = append(c.Exec, ir.Set{Field: f, Value: g.bits(f.Bits()), Mask: f.Ones()})
				if g.oneIn(2) {
					c.Exec[len(c.Exec)-1] = g.set(f)
				}
			}
		}
	}
	return c
}

func (g gen) learn(m ir.Match) ir.Learn {
	l := ir.Learn{
		Table: uint8(g.IntN(254)), Priority: pick(g, uint16(defaultPriority), uint16(g.Uint32())),
		Cookie: pick(g, 0, g.Uint64()), IdleTimeout: pick(g, 0, uint16(g.Uint32())), HardTimeout: pick(g, 0, uint16(g.Uint32())),
		DeleteLearned: g.oneIn(2),
	}
	l.Terms = append(l.Terms, ir.LearnTerm{Imm: ir.U64(etherTypeIPv4), Dst: ir.Whole(ir.EthType)},
		ir.LearnTerm{Imm: ir.U64(protoTCP), Dst: ir.Whole(ir.IPProto)})
	for range g.IntN(4) {
		t := ir.LearnTerm{Load: g.oneIn(2), Dst: g.sub(pick(g, ir.Reg1, ir.XXReg2, ir.Metadata, ir.EthSrc))}
		if !t.Load && g.oneIn(2) {
			t.Dst = ir.Whole(pick(g, ir.IPSrc, ir.TCPDst))
		}
		if g.oneIn(2) {
			t.Imm = g.bits(t.Dst.N)
		} else {
			t.Src = pick(g, t.Dst, ir.Sub{Field: ir.XXReg0, Ofs: 0, N: t.Dst.N})
			if eth, _ := m.Term(ir.EthType); t.Src.Field == ir.IPSrc && eth.Value.Lo != etherTypeIPv4 || t.Src.Field == ir.TCPDst {
				t.Src = ir.Sub{Field: ir.XXReg0, Ofs: 0, N: t.Dst.N}
			}
		}
		l.Terms = append(l.Terms, t)
	}
	return l
}

func (g gen) rule() ir.Rule {
	m := g.match()
	return ir.Rule{
		Table: uint8(g.IntN(254)), Priority: pick(g, uint16(defaultPriority), uint16(g.Uint32())),
		Cookie: pick(g, 0, g.Uint64()&0xffffffff, g.Uint64()), Match: m, Actions: g.actions(m, 0),
	}
}

func (g gen) group() ir.SelectGroup {
	s := ir.SelectGroup{Method: pick(g, "dp_hash", "hash", "")}
	if s.Method == "hash" {
		for _, f := range []ir.Field{ir.EthSrc, ir.EthDst, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.IPProto, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst} {
			if g.oneIn(2) {
				s.Fields = append(s.Fields, f)
			}
		}
	}
	if s.Method != "" && g.oneIn(2) {
		s.Param = g.Uint64()
	}
	for range g.IntN(5) {
		k := ir.Bucket{Weight: pick(g, uint16(1), 100, 0), Actions: g.actions(nil, 2)}
		if g.oneIn(3) {
			k.WatchPort = uint32(1 + g.IntN(0xfeff))
		}
		s.Buckets = append(s.Buckets, k)
	}
	return s
}
