package specialize

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"

	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
)

// variants is how many connection trackers there are for the packet of consecutive numbers.
const variants = 4

// newTracker returns a connection tracker that follows from a number: what it finds depends on the zone and on the packet's
// addresses and ports, and on nothing else. Of four numbers the first has connections that are established everywhere, the
// second ones that are new everywhere, the third different ones in each zone; of the fourth some are translated.
func newTracker(g *traffic, number uint64) eval.Tracker {
	reply := uint32(number/variants%2) * eval.StateRpl
	return func(zone uint16, p *eval.Packet) eval.Conn {
		r := rand.New(rand.NewPCG(number, tuple(zone, p)))
		switch number % variants {
		case 0:
			return eval.Conn{State: eval.StateEst | reply}
		case 1:
			return eval.Conn{State: eval.StateNew}
		case 2:
			return g.conn(r, p)
		}
		c := eval.Conn{State: eval.StateEst | reply}
		if r.IntN(2) == 0 {
			g.translate(r, p, &c)
		}
		return c
	}
}

// conn draws a connection. What is new or invalid has no mark and no label.
func (g *traffic) conn(r *rand.Rand, p *eval.Packet) eval.Conn {
	c := eval.Conn{State: oneOf[uint32](r,
		eval.StateEst, eval.StateEst, eval.StateEst, eval.StateEst|eval.StateRpl, eval.StateEst|eval.StateRpl, eval.StateEst|eval.StateRel,
		eval.StateNew, eval.StateNew|eval.StateRel, eval.StateRel|eval.StateRpl, eval.StateInv,
	)}
	if c.State&(eval.StateNew|eval.StateInv) != 0 {
		return c
	}
	// OVN's bits of ct_mark are blocked, natted, ecmp_reply_port and others; those of ct_label are the same, and an ACL's label.
	c.Mark = oneOf[uint32](r, 0, 0, 0, 0, 1, 2, 3, 1<<16|2, r.Uint32())
	c.Label = oneOf(r, ir.U128{}, ir.U128{}, ir.U128{}, ir.U64(1), ir.U64(2), ir.U128{Hi: 77}, ir.U128{Hi: r.Uint64(), Lo: r.Uint64()})
	if r.IntN(5) == 0 {
		g.translate(r, p, &c)
	}
	return c
}

// translate makes c a connection that is translated: its packets go to a workload, or they come from whom it was sent to first; and
// now and then to or from another port.
func (g *traffic) translate(r *rand.Rand, p *eval.Packet, c *eval.Conn) {
	src := r.IntN(2) == 0
	field, list, vips := ir.IPDst, g.v4, g.vips4
	if p.Value(ir.EthType).Lo == etherTypeIPv6 {
		field, list, vips = ir.IPv6Dst, g.v6, g.vips6
	}
	var hosts []ir.U128
	for _, e := range g.endpoints {
		if field == ir.IPv6Dst {
			hosts = append(hosts, e.v6...)
		} else {
			hosts = append(hosts, e.v4...)
		}
	}
	c.State |= eval.StateDNAT
	if src {
		field--
		c.State ^= eval.StateDNAT | eval.StateSNAT
		hosts = vips
	}
	if len(hosts) > 0 && r.IntN(5) > 0 {
		list = hosts
	}
	c.NAT = append(c.NAT, ir.LoadWide(ir.Whole(field), pick(r, list)))
	port := map[uint64]ir.Field{protoTCP: ir.TCPDst, protoUDP: ir.UDPDst, protoSCTP: ir.SCTPDst}[p.Value(ir.IPProto).Lo]
	if port == 0 || r.IntN(2) == 0 {
		return
	}
	if src {
		port--
	}
	c.NAT = append(c.NAT, ir.SetWhole(port, oneOf[uint64](r, 80, 8080, 40000)))
}

// tuple is what connections are told apart by.
func tuple(zone uint16, p *eval.Packet) uint64 {
	h := fnv.New64a()
	_ = binary.Write(h, binary.BigEndian, zone) // a hash takes everything
	for _, f := range []ir.Field{
		ir.EthType, ir.IPProto, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst,
		ir.SCTPSrc, ir.SCTPDst, ir.ICMPType, ir.ICMPCode, ir.ICMPv6Type, ir.ICMPv6Code,
	} {
		b := p.Value(f).Bytes16()
		_, _ = h.Write(b[:]) // likewise
	}
	return h.Sum64()
}
