package openflow

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// PacketIn is a packet that the bridge hands to its controllers, NXT_PACKET_IN2.
type PacketIn struct {
	Packet []byte
	// FullLen is the length of the packet in bytes if Packet is only its beginning, otherwise 0.
	FullLen uint32
	Table   uint8
	Cookie  uint64 // of the flow, 0 if the bridge does not say
	Reason  uint8  // OFPR_*
	// Metadata has the registers and the other fields that are not in the packet, as far as ir knows them.
	Metadata ir.Match
	// UserData is that of the ir.Controller action that sent the packet.
	UserData []byte
	// Continuation is what NXT_RESUME gives back, empty unless the action had Pause.
	Continuation []byte
}

// maxPacketIns is how many packet-ins may wait for their receiver; more are dropped, as by a busy controller.
const maxPacketIns = 256

// PacketIns returns the channel of packets that arrive after SetMissSendLen and SetPacketInFormat. It is never closed.
// Its receiver must keep up: when the channel is full packets are dropped.
func (c *Conn) PacketIns() <-chan PacketIn { return c.packetIns }

// DroppedPacketIns returns how many packet-ins have been dropped, and how many could not be understood.
func (c *Conn) DroppedPacketIns() (full, malformed uint64) {
	return c.droppedFull.Load(), c.droppedMalformed.Load()
}

// packetIn passes on f if it is a packet-in, and reports whether it was.
func (c *Conn) packetIn(f frame) bool {
	if f.typ != msgVendor || len(f.body) < 8 ||
		be.Uint32(f.body) != vendorNicira || be.Uint32(f.body[4:]) != nxtPacketIn2 {
		return false
	}
	pin, err := parsePacketIn(f.body[8:])
	if err != nil {
		c.droppedMalformed.Add(1)
		return true
	}
	select {
	case c.packetIns <- pin:
	default:
		c.droppedFull.Add(1)
	}
	return true
}

const nxtPacketIn2 = 30

// Properties of a packet-in (enum nx_packet_in2_prop_type).
const (
	pinPacket = iota
	pinFullLen
	pinBufferID
	pinTable
	pinCookie
	pinReason
	pinMetadata
	pinUserData
	pinContinuation
)

// parsePacketIn reads the properties of an NXT_PACKET_IN2. Slices of the result are parts of b.
func parsePacketIn(b []byte) (PacketIn, error) {
	var p PacketIn
	for len(b) > 0 {
		if len(b) < 4 {
			return p, fmt.Errorf("openflow packet-in: %d bytes left", len(b))
		}
		typ, n := be.Uint16(b), int(be.Uint16(b[2:]))
		if n < 4 || n > len(b) {
			return p, fmt.Errorf("openflow packet-in: property %d has length %d of %d", typ, n, len(b))
		}
		v := b[4:n]
		b = b[min((n+7)/8*8, len(b)):]
		want := map[uint16]int{pinFullLen: 4, pinTable: 1, pinCookie: 12, pinReason: 1}[typ]
		if len(v) < want {
			return p, fmt.Errorf("openflow packet-in: property %d has length %d", typ, n)
		}
		switch typ {
		case pinPacket:
			p.Packet = v
		case pinFullLen:
			p.FullLen = be.Uint32(v)
		case pinTable:
			p.Table = v[0]
		case pinCookie:
			p.Cookie = be.Uint64(v[4:]) // after padding to a multiple of 8
		case pinReason:
			p.Reason = v[0]
		case pinMetadata:
			m, err := knownTerms(v)
			if err != nil {
				return p, err
			}
			p.Metadata = m
		case pinUserData:
			p.UserData = v
		case pinContinuation:
			p.Continuation = v
		}
	}
	return p, nil
}

// knownTerms reads the terms on fields that ir has and passes over others.
func knownTerms(b []byte) (ir.Match, error) {
	var m ir.Match
	for len(b) > 0 {
		if len(b) < 4 || int(b[3]) > len(b)-4 {
			return nil, fmt.Errorf("openflow packet-in: metadata cut off after %d bytes", len(b))
		}
		tlv := b[:4+int(b[3])]
		b = b[len(tlv):]
		h, value, mask, _, err := cutTLV(tlv)
		if err != nil {
			continue
		}
		terms, err := appendTerms(nil, h, value, mask)
		if err != nil {
			continue
		}
		for _, t := range terms {
			if next, ok := m.With(t.Field, t.Value, t.Mask); ok {
				m = next
			}
		}
	}
	return m, nil
}
