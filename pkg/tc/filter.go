package tc

import "github.com/offloadd/offloadd/pkg/ir"

// EtherTypes that a filter can be for, in host byte order. ProtocolAll is ETH_P_ALL.
const (
	ProtocolAll  = 0x0003
	ProtocolIPv4 = 0x0800
	ProtocolARP  = 0x0806
	ProtocolVLAN = 0x8100
	ProtocolIPv6 = 0x86dd
	ProtocolQinQ = 0x88a8
)

// A Filter is a flower filter of an ingress or of a shared block.
//
// Of the filters of a chain that match a packet the one with the smallest Pref runs; among those of one Pref it is undefined
// which, so two of them must either be unable to match the same packet or do the same (see Check).
type Filter struct {
	Chain uint32 // at most MaxChain
	Pref  uint16 // 1 to 65535, the smallest wins
	// Handle tells filters with the same chain and pref apart. It is chosen by us and never 0.
	Handle uint32

	// Protocol is the EtherType that a packet must have, in host byte order, ProtocolAll for any. A VLAN-tagged packet's is
	// that of its outermost tag. All filters with the same chain and pref have the same.
	Protocol uint16

	// Indev is the name of the device that the packet came in on, for filters of a shared block; empty: any.
	Indev string

	// EncDstPort is the UDP port on which a tunnelled packet arrived; 0: any, tunnelled or not.
	EncDstPort uint16

	// Match has the other conditions. Fields that flower has no key for are refused by Check. EthType is not among its
	// terms, since Protocol says it. Any tun_metadata field stands for OVN's Geneve option (OptionClass, OptionType), TunID for
	// the whole VNI, IPFrag for the fragment flags, CTState for Open vSwitch's bits of it.
	Match ir.Match

	// Actions run in order; the last one decides what becomes of the packet.
	Actions []Action

	Flags Flags

	// Cookie is stamped on every action (TCA_ACT_COOKIE). It says that a filter is ours, and what it is.
	Cookie Cookie
}

// Key identifies a filter within its block.
type Key struct {
	Chain  uint32
	Pref   uint16
	Handle uint32
}

// Key returns f's key.
func (f *Filter) Key() Key { return Key{f.Chain, f.Pref, f.Handle} }

// A Cookie marks actions; the zero Cookie is none.
type Cookie [16]byte

// Flags are TCA_CLS_FLAGS_*, linux/pkt_cls.h.
type Flags uint32

// The flags of a filter. InHW and NotInHW are set by the kernel only.
const (
	SkipHW  Flags = 1 << iota // do not offload
	SkipSW                    // only in hardware; refused if the hardware refuses it
	InHW                      // offloaded
	NotInHW                   // not offloaded
	Verbose                   // the driver says why it refuses, as extended ack
)

// MaxChain is the largest number of a chain (TC_ACT_EXT_VAL_MASK).
const MaxChain = 1<<28 - 1

// OVN's Geneve option, ovn-architecture(7): class, and type with the critical bit. It has 4 bytes of data: a zero bit, 15 bits
// of the logical input port, 16 of the output port.
const (
	OptionClass = 0x0102
	OptionType  = 0x80
)
