package openflow

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// OXM classes (enum ofp12_oxm_class of lib/nx-match.c).
const (
	classNXM0       = 0x0000
	classNXM1       = 0x0001
	classBasic      = 0x8000
	classPacketRegs = 0x8001
)

// oxmHasMask is the bit of an OXM header that says that a mask as long as the value follows the value.
const oxmHasMask = 1 << 8

// oxmHeader returns the header of an OXM TLV without a mask; size is the value's length in bytes.
func oxmHeader(class, field uint32, size int) uint32 { return class<<16 | field<<9 | uint32(size) }

// vlanTCIBits: OpenFlow 1.5 matches a VLAN TCI as two fields, the VLAN id together with the "present" bit, and
// the priority.
const (
	vlanVIDPresent = 0x1fff
	vlanPCPShift   = 13
)

// Headers that no ir.Field has of its own.
var (
	headerInPort  = oxmHeader(classBasic, 0, 4) // 32 bits wide, unlike NXM_OF_IN_PORT
	headerVLANVID = oxmHeader(classBasic, 6, 2)
	headerVLANPCP = oxmHeader(classBasic, 7, 1)
)

// wireField says how Open vSwitch writes a field.
type wireField struct {
	name   string // the name of its legacy header, as in "move:NXM_NX_REG0[]"
	legacy uint32 // the header in extensions older than OpenFlow 1.5: NXM if there is one, else OXM
	oxm    uint32 // the header in matches and standard actions of OpenFlow 1.5
	size   int    // bytes of a value
}

var wire = func() (t [256]wireField) {
	both := func(f ir.Field, name string, class, field uint32, size int, oxmField uint32) {
		t[f] = wireField{name, oxmHeader(class, field, size), oxmHeader(classBasic, oxmField, size), size}
	}
	one := func(f ir.Field, name string, class, field uint32, size int) {
		h := oxmHeader(class, field, size)
		t[f] = wireField{name, h, h, size}
	}
	one(ir.ConjID, "NXM_NX_CONJ_ID", classNXM1, 37, 4)
	one(ir.InPort, "NXM_OF_IN_PORT", classNXM0, 0, 2)
	both(ir.EthSrc, "NXM_OF_ETH_SRC", classNXM0, 2, 6, 4)
	both(ir.EthDst, "NXM_OF_ETH_DST", classNXM0, 1, 6, 3)
	both(ir.EthType, "NXM_OF_ETH_TYPE", classNXM0, 3, 2, 5)
	one(ir.VLANTCI, "NXM_OF_VLAN_TCI", classNXM0, 4, 2)
	both(ir.IPSrc, "NXM_OF_IP_SRC", classNXM0, 7, 4, 11)
	both(ir.IPDst, "NXM_OF_IP_DST", classNXM0, 8, 4, 12)
	both(ir.IPv6Src, "NXM_NX_IPV6_SRC", classNXM1, 19, 16, 26)
	both(ir.IPv6Dst, "NXM_NX_IPV6_DST", classNXM1, 20, 16, 27)
	one(ir.IPFrag, "NXM_NX_IP_FRAG", classNXM1, 26, 1)
	one(ir.IPDSCP, "OXM_OF_IP_DSCP", classBasic, 8, 1)
	both(ir.IPECN, "NXM_NX_IP_ECN", classNXM1, 28, 1, 9)
	one(ir.IPTTL, "NXM_NX_IP_TTL", classNXM1, 29, 1)
	both(ir.IPv6Label, "NXM_NX_IPV6_LABEL", classNXM1, 27, 4, 28)
	both(ir.IPProto, "NXM_OF_IP_PROTO", classNXM0, 6, 1, 10)
	both(ir.TCPSrc, "NXM_OF_TCP_SRC", classNXM0, 9, 2, 13)
	both(ir.TCPDst, "NXM_OF_TCP_DST", classNXM0, 10, 2, 14)
	both(ir.TCPFlags, "NXM_NX_TCP_FLAGS", classNXM1, 34, 2, 42)
	both(ir.UDPSrc, "NXM_OF_UDP_SRC", classNXM0, 11, 2, 15)
	both(ir.UDPDst, "NXM_OF_UDP_DST", classNXM0, 12, 2, 16)
	one(ir.SCTPSrc, "OXM_OF_SCTP_SRC", classBasic, 17, 2)
	one(ir.SCTPDst, "OXM_OF_SCTP_DST", classBasic, 18, 2)
	both(ir.ICMPType, "NXM_OF_ICMP_TYPE", classNXM0, 13, 1, 19)
	both(ir.ICMPCode, "NXM_OF_ICMP_CODE", classNXM0, 14, 1, 20)
	both(ir.ICMPv6Type, "NXM_NX_ICMPV6_TYPE", classNXM1, 21, 1, 29)
	both(ir.ICMPv6Code, "NXM_NX_ICMPV6_CODE", classNXM1, 22, 1, 30)
	both(ir.NDTarget, "NXM_NX_ND_TARGET", classNXM1, 23, 16, 31)
	both(ir.NDSLL, "NXM_NX_ND_SLL", classNXM1, 24, 6, 32)
	both(ir.NDTLL, "NXM_NX_ND_TLL", classNXM1, 25, 6, 33)
	both(ir.ARPOp, "NXM_OF_ARP_OP", classNXM0, 15, 2, 21)
	both(ir.ARPSPA, "NXM_OF_ARP_SPA", classNXM0, 16, 4, 22)
	both(ir.ARPTPA, "NXM_OF_ARP_TPA", classNXM0, 17, 4, 23)
	both(ir.ARPSHA, "NXM_NX_ARP_SHA", classNXM1, 17, 6, 24)
	both(ir.ARPTHA, "NXM_NX_ARP_THA", classNXM1, 18, 6, 25)
	both(ir.TunID, "NXM_NX_TUN_ID", classNXM1, 16, 8, 38)
	one(ir.TunFlags, "NXM_NX_TUN_FLAGS", classNXM1, 104, 2)
	one(ir.TunSrc, "NXM_NX_TUN_IPV4_SRC", classNXM1, 31, 4)
	one(ir.TunDst, "NXM_NX_TUN_IPV4_DST", classNXM1, 32, 4)
	one(ir.TunIPv6Src, "NXM_NX_TUN_IPV6_SRC", classNXM1, 109, 16)
	one(ir.TunIPv6Dst, "NXM_NX_TUN_IPV6_DST", classNXM1, 110, 16)
	for n := range uint32(64) {
		one(ir.TunMetadata0+ir.Field(n), fmt.Sprintf("NXM_NX_TUN_METADATA%d", n), classNXM1, 40+n, 4)
	}
	for n := range uint32(16) {
		one(ir.Reg0+ir.Field(n), fmt.Sprintf("NXM_NX_REG%d", n), classNXM1, n, 4)
	}
	one(ir.PktMark, "NXM_NX_PKT_MARK", classNXM1, 33, 4)
	one(ir.CTState, "NXM_NX_CT_STATE", classNXM1, 105, 4)
	one(ir.CTZone, "NXM_NX_CT_ZONE", classNXM1, 106, 2)
	one(ir.CTMark, "NXM_NX_CT_MARK", classNXM1, 107, 4)
	one(ir.CTLabel, "NXM_NX_CT_LABEL", classNXM1, 108, 16)
	one(ir.CTNWSrc, "NXM_NX_CT_NW_SRC", classNXM1, 120, 4)
	one(ir.CTIPv6Src, "NXM_NX_CT_IPV6_SRC", classNXM1, 122, 16)
	one(ir.CTNWDst, "NXM_NX_CT_NW_DST", classNXM1, 121, 4)
	one(ir.CTIPv6Dst, "NXM_NX_CT_IPV6_DST", classNXM1, 123, 16)
	one(ir.CTNWProto, "NXM_NX_CT_NW_PROTO", classNXM1, 119, 1)
	one(ir.CTTPSrc, "NXM_NX_CT_TP_SRC", classNXM1, 124, 2)
	one(ir.CTTPDst, "NXM_NX_CT_TP_DST", classNXM1, 125, 2)
	one(ir.Metadata, "OXM_OF_METADATA", classBasic, 2, 8)
	for n := range uint32(8) {
		one(ir.XReg0+ir.Field(n), fmt.Sprintf("OXM_OF_PKT_REG%d", n), classPacketRegs, n, 8)
	}
	for n := range uint32(4) {
		one(ir.XXReg0+ir.Field(n), fmt.Sprintf("NXM_NX_XXREG%d", n), classNXM1, 111+n, 16)
	}
	return t
}()

// fieldOf finds a field by the class and number of any of its headers.
var fieldOf = func() map[uint32]ir.Field {
	m := map[uint32]ir.Field{}
	for i, w := range wire {
		if w.size > 0 {
			m[w.legacy>>9] = ir.Field(i)
			m[w.oxm>>9] = ir.Field(i)
		}
	}
	return m
}()

// known reports whether f can be written.
func known(f ir.Field) bool { return wire[f].size > 0 }
