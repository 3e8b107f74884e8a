package pinctrl

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

var be = binary.BigEndian

var broadcast4 = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Lengths of headers, in bytes.
const (
	ethHeader  = 14
	vlanHeader = 4
	ip4Header  = 20 // without options
	ip6Header  = 40
	icmpHeader = 8
	tcpHeader  = 20 // without options
	sctpHeader = 12
	sctpChunk  = 4 // type, flags, length
)

// EtherTypes.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIPv6 = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
)

// IP protocols, and headers of IPv6 that others follow.
const (
	protoHopByHop    = 0
	protoICMP        = 1
	protoTCP         = 6
	protoUDP         = 17
	protoRouting     = 43
	protoFragment    = 44
	protoAH          = 51
	protoICMPv6      = 58
	protoDestination = 60
	protoSCTP        = 132
)

// maxTags is how many VLAN tags a packet may have, as in Open vSwitch.
const maxTags = 2

// A fragment says which part of a datagram a packet is.
type fragment uint8

const (
	whole fragment = iota
	firstFragment
	laterFragment
)

// A frame is an Ethernet frame and where its parts are.
type frame struct {
	b         []byte
	l3        int    // where the network layer's header begins
	etherType uint16 // of what is there
	tci       uint16 // of the outer VLAN tag
	tagged    bool

	// Of IPv4 and IPv6 packets.
	src, dst netip.Addr
	proto    uint8 // behind the headers of IPv6 that are no protocol of their own
	fragment fragment
	l4       int // where the transport layer's header begins, unless it is a later fragment
	end      int // where the packet ends by its own account; padding may follow
}

// parseFrame finds the parts of an Ethernet frame. Besides an error the result has what comes before the mistake.
func parseFrame(b []byte) (frame, error) {
	f := frame{b: b, l3: ethHeader}
	if len(b) < ethHeader {
		return f, fmt.Errorf("frame of %d bytes", len(b))
	}
	f.etherType = be.Uint16(b[12:])
	for range maxTags {
		if f.etherType != etherVLAN && f.etherType != etherQinQ {
			break
		}
		if len(b) < f.l3+vlanHeader {
			return f, fmt.Errorf("VLAN tag in a frame of %d bytes", len(b))
		}
		if !f.tagged {
			f.tagged, f.tci = true, be.Uint16(b[f.l3:])
		}
		f.l3 += vlanHeader
		f.etherType = be.Uint16(b[f.l3-2:])
	}
	switch f.etherType {
	case etherIPv4:
		return f, f.parseIPv4()
	case etherIPv6:
		return f, f.parseIPv6()
	}
	return f, nil
}

func (f *frame) parseIPv4() error {
	p := f.b[f.l3:]
	if len(p) < ip4Header {
		return fmt.Errorf("IPv4 packet of %d bytes", len(p))
	}
	header, total := int(p[0]&0xf)*4, int(be.Uint16(p[2:]))
	if p[0]>>4 != 4 || header < ip4Header || total < header || total > len(p) {
		return fmt.Errorf("IPv4 packet of %d bytes: version %d, header of %d bytes, length %d", len(p), p[0]>>4, header, total)
	}
	f.src, f.dst = netip.AddrFrom4([4]byte(p[12:16])), netip.AddrFrom4([4]byte(p[16:20]))
	f.proto, f.l4, f.end = p[9], f.l3+header, f.l3+total
	f.setFragment(be.Uint16(p[6:])&0x1fff, p[6]&0x20 != 0)
	return nil
}

func (f *frame) setFragment(offset uint16, more bool) {
	switch {
	case offset != 0:
		f.fragment = laterFragment
	case more:
		f.fragment = firstFragment
	}
}

func (f *frame) parseIPv6() error {
	p := f.b[f.l3:]
	if len(p) < ip6Header {
		return fmt.Errorf("IPv6 packet of %d bytes", len(p))
	}
	length := int(be.Uint16(p[4:]))
	if p[0]>>4 != 6 || length > len(p)-ip6Header {
		return fmt.Errorf("IPv6 packet of %d bytes: version %d, payload of %d bytes", len(p), p[0]>>4, length)
	}
	f.src, f.dst = netip.AddrFrom16([16]byte(p[8:24])), netip.AddrFrom16([16]byte(p[24:40]))
	f.proto, f.l4, f.end = p[6], f.l3+ip6Header, f.l3+ip6Header+length
	for {
		const least = 8 // bytes of each of these headers
		rest := f.b[f.l4:f.end]
		n := 0
		switch f.proto {
		case protoHopByHop, protoRouting, protoDestination, protoAH, protoFragment:
			if len(rest) < least {
				return fmt.Errorf("IPv6 header %d of %d bytes", f.proto, len(rest))
			}
			n = least
		}
		switch f.proto {
		case protoHopByHop, protoRouting, protoDestination:
			n += int(rest[1]) * 8
		case protoAH:
			n += int(rest[1]) * 4
		case protoFragment:
			if f.setFragment(be.Uint16(rest[2:])&^7, rest[3]&1 != 0); f.fragment == laterFragment {
				f.l4 += n
				return nil // what follows is not a header; OVS says so, too: nw_proto is 44
			}
		default:
			return nil
		}
		if len(rest) < n {
			return fmt.Errorf("IPv6 header %d of %d bytes: %d are left", f.proto, n, len(rest))
		}
		f.proto, f.l4 = rest[0], f.l4+n
	}
}

func (f *frame) isIP() bool { return f.etherType == etherIPv4 || f.etherType == etherIPv6 }

// transport returns what follows the network layer's headers, nil if that is not in the packet.
func (f *frame) transport() []byte {
	if f.l4 == 0 || f.fragment == laterFragment {
		return nil
	}
	return f.b[f.l4:f.end]
}

// hopLimit returns the TTL or hop limit.
func (f *frame) hopLimit() uint8 {
	if f.etherType == etherIPv4 {
		return f.b[f.l3+8]
	}
	return f.b[f.l3+7]
}

// trafficClass returns the DSCP, in the upper six bits, and the ECN.
func (f *frame) trafficClass() uint8 {
	if f.etherType == etherIPv4 {
		return f.b[f.l3+1]
	}
	return uint8(be.Uint16(f.b[f.l3:]) >> 4)
}

// reply returns a frame with the addresses and tags of f, swapped if back is set, around a message of the transport layer.
func (f *frame) reply(proto, hops uint8, message []byte, back bool) []byte {
	src, dst := f.src, f.dst
	out := make([]byte, 0, f.l3+ip6Header+len(message))
	if back {
		src, dst = dst, src
		out = append(append(out, f.b[6:12]...), f.b[0:6]...)
	} else {
		out = append(out, f.b[0:12]...)
	}
	out = append(out, f.b[12:f.l3]...)
	if f.etherType == etherIPv4 {
		out = append(out, 4<<4|ip4Header/4, 0)
		out = be.AppendUint16(out, uint16(ip4Header+len(message)))
		out = append(out, 0, 0, 0, 0, hops, proto, 0, 0)
	} else {
		out = append(out, 6<<4, 0, 0, 0)
		out = be.AppendUint16(out, uint16(len(message)))
		out = append(out, proto, hops)
	}
	out = append(out, src.AsSlice()...)
	out = append(out, dst.AsSlice()...)
	if f.etherType == etherIPv4 {
		be.PutUint16(out[f.l3+10:], finish(sum(0, out[f.l3:])))
	}
	return append(out, message...)
}

// checksum is that of TCP and ICMPv6 for a message between the ends of f, in either direction, in which the checksum is 0.
func (f *frame) checksum(proto uint8, message []byte) uint16 {
	s := sum(pseudo(proto, len(message)), f.src.AsSlice())
	return finish(sum(sum(s, f.dst.AsSlice()), message))
}

// pseudo is the sum of a pseudo-header without its addresses: RFC 9293, section 3.1; RFC 8200, section 8.1. Both are the
// same for messages of less than 65536 bytes.
func pseudo(proto uint8, length int) uint32 { return uint32(proto) + uint32(length) }

// sum adds the 16-bit words of b to s: RFC 1071. Packets are too short to overflow it.
func sum(s uint32, b []byte) uint32 {
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(be.Uint16(b[i:]))
	}
	if len(b)%2 != 0 {
		s += uint32(b[len(b)-1]) << 8
	}
	return s
}

// finish makes a checksum of a sum.
func finish(s uint32) uint16 {
	for s>>16 != 0 {
		s = s&0xffff + s>>16
	}
	return ^uint16(s)
}
