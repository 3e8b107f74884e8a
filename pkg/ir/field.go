package ir

import "fmt"

// Field is a header field, metadata field or register, as in ovs-fields(7).
type Field uint8

// The fields, in the order in which Open vSwitch lists them in an encoded match (lib/nx-match.c, nx_put_raw).
// The zero Field is no field.
const (
	_ Field = iota
	ConjID
	InPort // 16 bits, OpenFlow port number; 0xffff is NONE
	EthSrc
	EthDst
	EthType
	VLANTCI
	IPSrc
	IPDst
	IPv6Src
	IPv6Dst
	IPFrag // 2 bits: bit 0 any, bit 1 later
	IPDSCP // nw_tos >> 2, 6 bits
	IPECN  // 2 bits
	IPTTL
	IPv6Label
	IPProto
	TCPSrc
	TCPDst
	TCPFlags
	UDPSrc
	UDPDst
	SCTPSrc
	SCTPDst
	ICMPType
	ICMPCode
	ICMPv6Type
	ICMPv6Code
	NDTarget
	NDSLL
	NDTLL
	ARPOp
	ARPSPA
	ARPTPA
	ARPSHA
	ARPTHA
	TunID
	TunFlags
	TunSrc
	TunDst
	TunIPv6Src
	TunIPv6Dst
	TunMetadata0 // TunMetadata0+n is tun_metadata<n>, n < 64; OVN maps 32 bits of it
)

// Fields after the 64 tunnel metadata fields.
const (
	tunMetadataLast Field = TunMetadata0 + 63

	// Reg0 is the first of the 32-bit registers; Reg0+n is reg<n>, n < 16.
	Reg0 Field = tunMetadataLast + iota
	Reg1
	Reg2
	Reg3
	Reg4
	Reg5
	Reg6
	Reg7
	Reg8
	Reg9
	Reg10
	Reg11
	Reg12
	Reg13
	Reg14
	Reg15
	PktMark
	CTState
	CTZone
	CTMark
	CTLabel
	CTNWSrc
	CTIPv6Src
	CTNWDst
	CTIPv6Dst
	CTNWProto
	CTTPSrc
	CTTPDst
	Metadata
	// XReg0 is the first of the 64-bit views of the registers; XReg0+n is reg<2n> (high) and reg<2n+1> (low), n < 8.
	// Views occur in actions only; a Match holds 32-bit registers.
	XReg0
	XReg1
	XReg2
	XReg3
	XReg4
	XReg5
	XReg6
	XReg7
	// XXReg0 is the first of the 128-bit views; XXReg0+n is reg<4n> (highest) to reg<4n+3> (lowest), n < 4.
	// Views occur in actions only.
	XXReg0
	XXReg1
	XXReg2
	XXReg3
	numFields
)

type fieldDesc struct {
	name string // as in ovs-fields(7)
	bits int
}

var fields = func() (t [numFields]fieldDesc) {
	set := func(f Field, name string, bits int) { t[f] = fieldDesc{name, bits} }
	set(ConjID, "conj_id", 32)
	set(InPort, "in_port", 16)
	set(EthSrc, "eth_src", 48)
	set(EthDst, "eth_dst", 48)
	set(EthType, "eth_type", 16)
	set(VLANTCI, "vlan_tci", 16)
	set(IPSrc, "ip_src", 32)
	set(IPDst, "ip_dst", 32)
	set(IPv6Src, "ipv6_src", 128)
	set(IPv6Dst, "ipv6_dst", 128)
	set(IPv6Label, "ipv6_label", 20)
	set(IPProto, "nw_proto", 8)
	set(IPDSCP, "ip_dscp", 6)
	set(IPECN, "nw_ecn", 2)
	set(IPTTL, "nw_ttl", 8)
	set(IPFrag, "ip_frag", 2)
	set(TCPSrc, "tcp_src", 16)
	set(TCPDst, "tcp_dst", 16)
	set(TCPFlags, "tcp_flags", 12)
	set(UDPSrc, "udp_src", 16)
	set(UDPDst, "udp_dst", 16)
	set(SCTPSrc, "sctp_src", 16)
	set(SCTPDst, "sctp_dst", 16)
	set(ICMPType, "icmp_type", 8)
	set(ICMPCode, "icmp_code", 8)
	set(ICMPv6Type, "icmpv6_type", 8)
	set(ICMPv6Code, "icmpv6_code", 8)
	set(NDTarget, "nd_target", 128)
	set(NDSLL, "nd_sll", 48)
	set(NDTLL, "nd_tll", 48)
	set(ARPOp, "arp_op", 16)
	set(ARPSPA, "arp_spa", 32)
	set(ARPTPA, "arp_tpa", 32)
	set(ARPSHA, "arp_sha", 48)
	set(ARPTHA, "arp_tha", 48)
	set(TunID, "tun_id", 64)
	set(TunFlags, "tun_flags", 16)
	set(TunSrc, "tun_src", 32)
	set(TunDst, "tun_dst", 32)
	set(TunIPv6Src, "tun_ipv6_src", 128)
	set(TunIPv6Dst, "tun_ipv6_dst", 128)
	for i := range 64 {
		set(TunMetadata0+Field(i), fmt.Sprintf("tun_metadata%d", i), 32)
	}
	for i := range 16 {
		set(Reg0+Field(i), fmt.Sprintf("reg%d", i), 32)
	}
	set(PktMark, "pkt_mark", 32)
	set(CTState, "ct_state", 32)
	set(CTZone, "ct_zone", 16)
	set(CTMark, "ct_mark", 32)
	set(CTLabel, "ct_label", 128)
	set(CTNWProto, "ct_nw_proto", 8)
	set(CTNWSrc, "ct_nw_src", 32)
	set(CTNWDst, "ct_nw_dst", 32)
	set(CTIPv6Src, "ct_ipv6_src", 128)
	set(CTIPv6Dst, "ct_ipv6_dst", 128)
	set(CTTPSrc, "ct_tp_src", 16)
	set(CTTPDst, "ct_tp_dst", 16)
	set(Metadata, "metadata", 64)
	for i := range 8 {
		set(XReg0+Field(i), fmt.Sprintf("xreg%d", i), 64)
	}
	for i := range 4 {
		set(XXReg0+Field(i), fmt.Sprintf("xxreg%d", i), 128)
	}
	return t
}()

// Valid reports whether f is one of the fields.
func (f Field) Valid() bool { return f > 0 && f < numFields }

// String returns the field's name as in ovs-fields(7).
func (f Field) String() string {
	if !f.Valid() {
		return fmt.Sprintf("field(%d)", uint8(f))
	}
	return fields[f].name
}

// Bits returns the width of f.
func (f Field) Bits() int { return fields[f].bits }

// Ones returns the mask of the whole field.
func (f Field) Ones() U128 { return Ones(fields[f].bits) }

// IsTunMetadata reports whether f is one of tun_metadata0..63.
func (f Field) IsTunMetadata() bool { return f >= TunMetadata0 && f <= tunMetadataLast }

// IsReg reports whether f is one of the 32-bit registers.
func (f Field) IsReg() bool { return f >= Reg0 && f <= Reg15 }

// Sub is a range of bits of a field: N bits from bit Ofs, 0 being the least significant.
type Sub struct {
	Field  Field
	Ofs, N int
}

// Whole returns all bits of f.
func Whole(f Field) Sub { return Sub{f, 0, f.Bits()} }

// Bit returns bit n of f.
func Bit(f Field, n int) Sub { return Sub{f, n, 1} }

// Mask returns the mask of s within its field.
func (s Sub) Mask() U128 { return Ones(s.N).Shl(s.Ofs) }
