package compile

import (
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
)

// learnPriority is OFP_DEFAULT_PRIORITY.
const learnPriority = 0x8000

const protoSCTP = 132

// Timeouts, in seconds, of what commit_ecmp_nh learns.
const (
	ecmpIdle = 20
	ecmpHard = 30
)

// same says that the learned flow matches what the packet has in f.
func same(f ir.Field) ir.LearnTerm { return copied(f, f) }

// copied says that the learned flow matches in dst what the packet has in src.
func copied(src, dst ir.Field) ir.LearnTerm {
	return ir.LearnTerm{Src: ir.Whole(src), Dst: ir.Whole(dst)}
}

// equal says that the learned flow matches v in f.
func equal(f ir.Field, v ir.U128) ir.LearnTerm { return ir.LearnTerm{Imm: v, Dst: ir.Whole(f)} }

// loads says that the learned flow writes v to dst.
func loads(dst ir.Sub, v ir.U128) ir.LearnTerm { return ir.LearnTerm{Load: true, Imm: v, Dst: dst} }

// ipFields returns the EtherType and the address fields of an IP version.
func ipFields(v6 bool) (ethType ir.U128, src, dst ir.Field) {
	if v6 {
		return ir.U64(0x86dd), ir.IPv6Src, ir.IPv6Dst
	}
	return ir.U64(0x800), ir.IPSrc, ir.IPDst
}

// portFields returns the port fields of an IP protocol that logical.CommitECMPNH or logical.CommitLBAff names.
func portFields(proto uint8) (src, dst ir.Field) {
	switch proto {
	case protoUDP:
		return ir.UDPSrc, ir.UDPDst
	case protoSCTP:
		return ir.SCTPSrc, ir.SCTPDst
	}
	return ir.TCPSrc, ir.TCPDst
}

// learnECMP remembers the connection in one of the two tables: in TableECMPNextHopMAC as the packet shows it, with
// the next hop's Ethernet address; in TableECMPNextHop as the replies will look.
func learnECMP(a logical.CommitECMPNH, table uint8) ir.Learn {
	forward := table == TableECMPNextHopMAC
	pair := func(src, dst ir.Field) []ir.LearnTerm {
		if forward {
			return []ir.LearnTerm{same(src), same(dst)}
		}
		return []ir.LearnTerm{copied(dst, src), copied(src, dst)}
	}
	ethType, ipSrc, ipDst := ipFields(a.IPv6)

	terms := []ir.LearnTerm{same(ir.Metadata)}
	if forward {
		terms = append(terms, same(ir.EthSrc))
	}
	terms = append(terms, equal(ir.EthType, ethType))
	terms = append(terms, pair(ipSrc, ipDst)...)
	terms = append(terms, equal(ir.IPProto, ir.U64(uint64(a.Proto))))
	terms = append(terms, pair(portFields(a.Proto))...)
	terms = append(terms, loads(ir.Bit(regFlags, flagLookupECMPNH), ir.U64(1)))
	return ir.Learn{
		Table: table, Priority: learnPriority, IdleTimeout: ecmpIdle, HardTimeout: ecmpHard, DeleteLearned: true,
		Terms: terms,
	}
}

// commitLBAff remembers the backend of a client; the table hands it out in the registers where northd looks for it
// (include/ovn/logical-fields.h, MFF_LOG_LB_AFF_MATCH_*).
func (o *encoding) commitLBAff(a logical.CommitLBAff) {
	v6 := a.VIP.Addr().Is6()
	ethType, ipSrc, ipDst := ipFields(v6)
	terms := []ir.LearnTerm{
		same(ir.Metadata), equal(ir.EthType, ethType), same(ipSrc), equal(ipDst, addrBits(a.VIP.Addr())),
	}
	if a.Proto != 0 {
		_, portDst := portFields(a.Proto)
		terms = append(terms,
			equal(ir.IPProto, ir.U64(uint64(a.Proto))), equal(portDst, ir.U64(uint64(a.VIP.Port()))))
	}
	terms = append(terms, loads(ir.Bit(regFlags, flagUseLBAffinity), ir.U64(1)))

	backend := ir.Reg4
	switch {
	case v6 && o.IsSwitch:
		backend = ir.XXReg0
	case v6:
		backend = ir.XXReg1
	}
	terms = append(terms, loads(ir.Whole(backend), addrBits(a.Backend.Addr())))
	if a.Backend.Port() != 0 {
		terms = append(terms, loads(ir.Sub{Field: ir.Reg8, Ofs: 0, N: 16}, ir.U64(uint64(a.Backend.Port()))))
	}
	o.add(ir.Learn{
		Table: TableLBAffinity, Priority: learnPriority, IdleTimeout: a.Timeout, DeleteLearned: true, Terms: terms,
	})
}
