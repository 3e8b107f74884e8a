package tc

import (
	"net/netip"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Action is one step of a filter's action list. The set of actions is closed: every implementation is in this file.
// All actions but the last pass the packet on to the next one (TC_ACT_PIPE).
type Action interface{ isAction() }

// CT is tc-ct(8). Without Commit and Clear it looks the packet up in Zone: the packet has the state, mark and labels of its
// connection from then on. With NAT it is translated as the connection is.
type CT struct {
	Zone             uint16
	Clear            bool // forget the connection; nothing else may be set
	Commit, Force    bool
	Mark, MarkMask   uint32
	Label, LabelMask ir.U128

	// NAT asks for translation. With Commit, Src or Dst say of what, to an address from AddrMin to AddrMax and, if
	// they are not 0, a port from PortMin to PortMax.
	NAT              bool
	Src, Dst         bool
	AddrMin, AddrMax netip.Addr
	PortMin, PortMax uint16
}

// Pedit is tc-pedit(8) in its extended form. The packet's checksums are not mended: see CSum.
type Pedit struct{ Edits []Edit }

// An Edit writes Value to the bits of Field that Mask selects. With Add, which is for IPTTL only, the value is added to the
// field modulo 256, and Mask is all ones. IPTTL of a filter for IPv6 is the hop limit.
type Edit struct {
	Field       ir.Field // EthSrc, EthDst, IPSrc, IPDst, IPv6Src, IPv6Dst, IPTTL, IPDSCP, TCPSrc, TCPDst, UDPSrc, UDPDst
	Value, Mask ir.U128
	Add         bool
}

// CSum is tc-csum(8): it computes checksums anew.
type CSum struct{ IPv4, ICMP, IGMP, TCP, UDP, UDPLite, SCTP bool }

// TunnelSet is "tunnel_key set", tc-tunnel_key(8): what a tunnel device that the packet is sent to will write around it.
type TunnelSet struct {
	ID       uint32 // the VNI
	Src, Dst netip.Addr
	DstPort  uint16
	TOS, TTL uint8 // 0 is sent as 0, not as a default
	NoCSum   bool  // send an outer UDP checksum of 0
	NoFrag   bool  // set DF on the outer packet; kernels before 6.3 refuse it
	Options  []GeneveOption
}

// A GeneveOption is one TLV of a Geneve header. Data has a multiple of 4 bytes, at most 124.
type GeneveOption struct {
	Class uint16
	Type  uint8
	Data  string
}

// TunnelUnset is "tunnel_key unset": the packet forgets the tunnel that it came through.
type TunnelUnset struct{}

// A VLANOp says what VLAN does with the outermost tag, TCA_VLAN_ACT_*.
type VLANOp uint8

// The operations of VLAN.
const (
	VLANPop VLANOp = iota + 1
	VLANPush
	VLANModify
)

// VLAN is tc-vlan(8). ID, Prio and Protocol, the tag's EtherType in host byte order, are for VLANPush and VLANModify.
type VLAN struct {
	Op       VLANOp
	ID       uint16
	Prio     uint8
	Protocol uint16
}

// SkbEdit is tc-skbedit(8), as far as it is needed: the mark, and with Host that the packet is for this host.
type SkbEdit struct {
	Mark, MarkMask uint32
	Host           bool
}

// Mirred is tc-mirred(8): send the packet, or with Mirror a copy, to a device: out of it, or with Ingress as if it had come in
// there. Without Mirror it is the last action.
type Mirred struct {
	Ifindex int
	Mirror  bool
	Ingress bool
}

// Goto looks the packet up in another chain. It is the last action.
type Goto struct{ Chain uint32 }

// Pass lets the packet go on to whoever receives from the device, Open vSwitch for one. It is the last action.
type Pass struct{}

// Drop ends the packet. It is the last action.
type Drop struct{}

// Trap sends a packet from the hardware to the device. In software the packet is lost, so it is for SkipSW filters only.
type Trap struct{}

func (CT) isAction()          {}
func (Pedit) isAction()       {}
func (CSum) isAction()        {}
func (TunnelSet) isAction()   {}
func (TunnelUnset) isAction() {}
func (VLAN) isAction()        {}
func (SkbEdit) isAction()     {}
func (Mirred) isAction()      {}
func (Goto) isAction()        {}
func (Pass) isAction()        {}
func (Drop) isAction()        {}
func (Trap) isAction()        {}
