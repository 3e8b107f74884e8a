package eval

import "github.com/offloadd/offloadd/pkg/ir"

// A Packet is the fields of a packet and what the switch remembers with it: registers, metadata, the tunnel it came through
// and connection tracking state. A field that a packet does not have is 0, as in Open vSwitch. Packets are values: a copy is
// independent of its original. The zero Packet is a frame of type 0 from port 0.
type Packet struct {
	fields [256]ir.U128
	inner  [maxVLANs]uint16 // TCIs below the outermost tag, the outer one first
}

// maxVLANs is how many tags below the outermost one a packet can have; pushing more loses the innermost one.
const maxVLANs = 3

// Value returns the value of f.
func (p *Packet) Value(f ir.Field) ir.U128 {
	if first, n := registers(f); n > 0 {
		var v ir.U128
		for i := range n {
			v = v.Shl(32).Or(p.fields[first+ir.Field(i)])
		}
		return v
	}
	return p.fields[f]
}

// Set gives f a value, of which bits outside the field are ignored.
func (p *Packet) Set(f ir.Field, v ir.U128) {
	if first, n := registers(f); n > 0 {
		for i := range n {
			p.fields[first+ir.Field(i)] = v.Shr(32 * (n - 1 - i)).And(ir.Ones(32))
		}
		return
	}
	p.fields[f] = v.And(f.Ones())
}

// registers returns the n 32-bit registers of which f is a view, the most significant first; n is 0 if f is none.
func registers(f ir.Field) (first ir.Field, n int) {
	switch {
	case f >= ir.XXReg0 && f <= ir.XXReg3:
		return ir.Reg0 + 4*(f-ir.XXReg0), 4
	case f >= ir.XReg0 && f <= ir.XReg7:
		return ir.Reg0 + 2*(f-ir.XReg0), 2
	}
	return 0, 0
}

// Bits returns the value of some bits.
func (p *Packet) Bits(s ir.Sub) ir.U128 { return p.Value(s.Field).Shr(s.Ofs).And(ir.Ones(s.N)) }

// SetBits gives some bits a value.
func (p *Packet) SetBits(s ir.Sub, v ir.U128) {
	p.setMasked(s.Field, v.And(ir.Ones(s.N)).Shl(s.Ofs), s.Mask())
}

func (p *Packet) setMasked(f ir.Field, v, mask ir.U128) {
	p.Set(f, p.Value(f).AndNot(mask).Or(v.And(mask)))
}

// Satisfies reports whether m matches the packet.
func (p *Packet) Satisfies(m ir.Match) bool {
	for i := range m {
		if p.Value(m[i].Field).And(m[i].Mask) != m[i].Value {
			return false
		}
	}
	return true
}

// isIP reports whether the packet has a TTL.
func (p *Packet) isIP() bool {
	switch p.fields[ir.EthType].Lo {
	case etherTypeIPv4, etherTypeIPv6:
		return true
	}
	return false
}

const (
	etherTypeIPv4, etherTypeIPv6 = 0x0800, 0x86dd

	vlanPresent = 0x1000
)

// pushVLAN adds an outermost tag with VLAN and priority 0.
func (p *Packet) pushVLAN() {
	if tci := uint16(p.fields[ir.VLANTCI].Lo); tci&vlanPresent != 0 {
		copy(p.inner[1:], p.inner[:])
		p.inner[0] = tci
	}
	p.Set(ir.VLANTCI, ir.U64(vlanPresent))
}

// Inner returns the TCIs of the tags below the outermost one, the outer one first.
func (p *Packet) Inner() []uint16 {
	var tags []uint16
	for _, tci := range p.inner {
		if tci != 0 {
			tags = append(tags, tci)
		}
	}
	return tags
}

// popVLAN removes the outermost tag, if there is one.
func (p *Packet) popVLAN() {
	if p.fields[ir.VLANTCI].Lo&vlanPresent == 0 {
		return
	}
	p.Set(ir.VLANTCI, ir.U64(uint64(p.inner[0])))
	copy(p.inner[:], p.inner[1:])
	p.inner[maxVLANs-1] = 0
}

// untrack forgets the connection.
func (p *Packet) untrack() {
	for f := ir.CTState; f <= ir.CTTPDst; f++ {
		p.fields[f] = ir.U128{}
	}
}

// transport returns the fields of the source and destination port that a packet of this protocol has.
func (p *Packet) transport() (src, dst ir.Field, ok bool) {
	switch p.fields[ir.IPProto].Lo {
	case protoTCP:
		return ir.TCPSrc, ir.TCPDst, true
	case protoUDP:
		return ir.UDPSrc, ir.UDPDst, true
	case protoSCTP:
		return ir.SCTPSrc, ir.SCTPDst, true
	}
	return 0, 0, false
}

const protoTCP, protoUDP, protoSCTP = 6, 17, 132

// translate rewrites the addresses that n names to the first of their range, as a new connection's first packet may be.
// It returns the flags of ct_state that tell of it.
func (p *Packet) translate(n *ir.NAT) uint64 {
	addr, port, flag := ir.IPSrc, ir.Field(0), uint64(StateSNAT)
	if n.IPv6 {
		addr = ir.IPv6Src
	}
	src, dst, hasPorts := p.transport()
	if hasPorts {
		port = src
	}
	switch {
	case n.Dst:
		flag = StateDNAT
		if addr++; hasPorts { // the destination follows the source
			port = dst
		}
	case !n.Src:
		return 0
	}
	if n.AddrMin.IsZero() {
		return 0
	}
	p.Set(addr, n.AddrMin)
	if n.PortMin != 0 && hasPorts {
		p.Set(port, ir.U64(uint64(n.PortMin)))
	}
	return flag
}
