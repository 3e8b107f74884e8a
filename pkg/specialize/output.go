package specialize

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// rewritable are the fields of a packet that TC can write.
var rewritable = []ir.Field{
	ir.EthSrc, ir.EthDst, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.IPDSCP, ir.IPTTL, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst,
}

// fixed are the fields of a packet that TC cannot write: they must be as they were.
var fixed = []ir.Field{
	ir.IPECN, ir.IPProto, ir.TCPFlags, ir.SCTPSrc, ir.SCTPDst, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code,
}

// output sends the packet to a port. It returns why filters cannot.
func (m *machine) output(port uint32) Reason {
	in := &m.field[ir.InPort]
	if in.val == ir.U64(uint64(port)) {
		m.read(ir.InPort, ir.InPort.Ones())
		return NoReason // Open vSwitch does not send packets back
	}
	if !m.inherited[ir.InPort].IsZero() && port <= 0xffff {
		m.notPorts[uint16(port)] = struct{}{}
	}
	if m.here.output != nil {
		return SeveralCopies
	}
	if port > 0xffff {
		return NoDevice
	}
	m.trace.ask(source{kind: portSource, of: primary{value: uint64(port)}})
	out := &Output{Port: uint16(port), Unset: m.state.Tunnelled}
	if t := m.tunnels[uint16(port)]; t != nil {
		encap, reason := m.encapsulate(t)
		if reason != NoReason {
			return reason
		}
		out.Encap, out.Device = encap, m.in.TunnelDevice.Name
	} else if dev, ok := m.ports[uint16(port)]; ok {
		out.Device = dev
	} else {
		return NoDevice
	}
	if reason := m.rewrite(out); reason != NoReason {
		return reason
	}
	m.here.output = out
	return NoReason
}

// encapsulate returns the outer header.
func (m *machine) encapsulate(t *Tunnel) (*Encap, Reason) {
	if m.state.Tunnelled {
		return nil, TunnelType // from tunnel to tunnel: the device would have to forget and remember at once
	}
	m.read(ir.TunID, ir.TunID.Ones())
	m.read(m.in.Geneve, ir.Ones(32))
	id, option := m.field[ir.TunID], m.field[m.in.Geneve]
	if id.known != ir.TunID.Ones() || option.known != ir.Ones(32) || id.val.Lo >= 1<<24 {
		return nil, CopiedField
	}
	return &Encap{Tunnel: t, VNI: uint32(id.val.Lo), Option: uint32(option.val.Lo), NoFrag: m.in.Caps.NoFrag}, NoReason
}

// rewrite finds what differs between the packet as it is and as it arrived.
func (m *machine) rewrite(out *Output) Reason {
	m.read(ir.PktMark, ir.PktMark.Ones())
	m.read(ir.VLANTCI, ir.VLANTCI.Ones())
	m.read(ir.EthType, ir.EthType.Ones())
	if !m.field[ir.PktMark].known.IsZero() {
		return CopiedField // the mark is set
	}
	if v := &m.field[ir.VLANTCI]; v.known != ir.VLANTCI.Ones() || !v.val.IsZero() {
		return VLANTag
	}
	for _, f := range fixed {
		m.read(f, f.Ones())
		if v := &m.field[f]; !m.absent(f) && !v.isOriginal(f, f.Ones()) {
			return CopiedField
		}
	}
	addresses := false
	for _, f := range rewritable {
		m.read(f, f.Ones())
		v := m.resolved(f)
		if m.absent(f) || v.isOriginal(f, f.Ones()) {
			continue
		}
		c := &m.cube[f]
		if v.known.AndNot(c.mask).IsZero() && v.val.Xor(c.val).And(v.known).IsZero() && v.isOriginal(f, f.Ones().AndNot(v.known)) {
			continue // the filter asks for it
		}
		if !v.isOriginal(f, f.Ones().AndNot(v.known)) {
			return CopiedField
		}
		out.Edits = append(out.Edits, Edit{f, v.val, v.known})
		if f != ir.EthSrc && f != ir.EthDst {
			out.CSumIP = m.state.EtherType == etherTypeIPv4
			addresses = addresses || f != ir.IPDSCP && f != ir.IPTTL
		}
	}
	out.DecTTL = m.here.ttlDec
	if m.field[ir.IPTTL].known == ir.Ones(8) {
		out.DecTTL = 0 // written
	}
	if out.DecTTL > 0 {
		out.CSumIP = m.state.EtherType == etherTypeIPv4
	}
	if addresses {
		// The checksum of the transport covers addresses and ports.
		c := &m.cube[ir.IPProto]
		if c.mask != ir.Ones(8) {
			return CopiedField
		}
		switch c.val.Lo {
		case protoTCP:
			out.CSumTCP = true
		case protoUDP:
			out.CSumUDP = true
		case protoICMP:
		default:
			return CopiedField
		}
	}
	return NoReason
}

// absent reports whether a field is one that packets of this type do not have: it is 0 whatever was written.
func (m *machine) absent(f ir.Field) bool {
	other := onlyIPv4
	if m.state.EtherType == etherTypeIPv4 {
		other = onlyIPv6
	}
	return slices.Contains(other, f)
}

// resolved returns the value of a field with the bits that the cube knows as constants, if they are of another field.
func (m *machine) resolved(f ir.Field) value {
	v := m.field[f]
	if v.alias.IsZero() || v.src == f {
		return v
	}
	c := &m.cube[v.src]
	return v.pinned(v.src, c.val, c.mask)
}
