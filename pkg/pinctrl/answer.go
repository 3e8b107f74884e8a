package pinctrl

import (
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// PacketOut is a packet to send through actions, as if it had come from the controller port.
type PacketOut struct {
	Actions []ir.Action
	Packet  []byte
}

// Answer returns the packet that pin asks for. An error says why there is none, and is an [ErrSilence] if there must not be one.
func Answer(pin openflow.PacketIn) (PacketOut, error) {
	if len(pin.UserData) < compile.OpcodeHeader {
		return PacketOut{}, fmt.Errorf("pinctrl packet-in of table %d: user data of %d bytes", pin.Table, len(pin.UserData))
	}
	nested, err := openflow.DecodeActions(pin.UserData[compile.OpcodeHeader:])
	if err != nil {
		return PacketOut{}, fmt.Errorf("pinctrl packet-in of table %d: nested actions: %w", pin.Table, err)
	}
	packet, nested, err := answer(opcode(pin.UserData), pin.Packet, nested)
	if err != nil {
		return PacketOut{}, fmt.Errorf("pinctrl packet-in of table %d: %w", pin.Table, err)
	}
	return PacketOut{append(restore(pin.Metadata), nested...), packet}, nil
}

// answer returns the packet that op makes of another, and what is left to do of the nested actions.
func answer(op compile.Opcode, packet []byte, nested []ir.Action) (out []byte, rest []ir.Action, err error) {
	var reply func(*frame) ([]byte, error)
	switch op {
	case compile.OpNDNA:
		out, err = advertise(packet, flagSolicited|flagOverride)
		return out, nested, err
	case compile.OpNDNARouter:
		out, err = advertise(packet, flagSolicited|flagOverride|flagRouter)
		return out, nested, err
	case compile.OpICMP, compile.OpICMP4Error, compile.OpICMP6Error:
		var mtu uint32
		nested, mtu = takeMTU(nested)
		reply = func(f *frame) ([]byte, error) { return f.icmpError(op == compile.OpICMP, mtu, false) }
	case compile.OpTCPReset:
		reply = func(f *frame) ([]byte, error) { return f.tcpReset(false) }
	case compile.OpSCTPAbort:
		reply = func(f *frame) ([]byte, error) { return f.sctpAbort(false) }
	case compile.OpReject:
		reply = (*frame).reject
	case compile.OpLog, compile.OpPutICMP4FragMTU, compile.OpPutICMP6FragMTU:
	}
	if reply == nil {
		return nil, nil, fmt.Errorf("opcode %d is not answered", op)
	}
	f, err := parseFrame(packet)
	if err != nil {
		return nil, nil, err
	}
	out, err = reply(&f)
	return out, nested, err
}

func opcode(userData []byte) compile.Opcode { return compile.Opcode(be.Uint32(userData)) }

// restore returns the actions that give a packet the registers and the metadata of another: all of its state in the
// logical pipeline.
func restore(m ir.Match) []ir.Action {
	var acts []ir.Action
	for _, t := range m {
		if t.Field.IsReg() || t.Field == ir.Metadata {
			acts = append(acts, ir.Set{Field: t.Field, Value: t.Value, Mask: t.Field.Ones()})
		}
	}
	return acts
}

// Flags of a Neighbor Advertisement, RFC 4861, section 4.4.
const (
	flagRouter    = 0x80000000
	flagSolicited = 0x40000000
	flagOverride  = 0x20000000
)

const (
	ndHeader  = 24 // ICMPv6 header, flags or reserved, target
	llaOption = 8  // option type, length, Ethernet address
)

// Who a Neighbor Advertisement is for if nobody in particular asked: all nodes, RFC 4291, section 2.7.1, and their
// Ethernet address, RFC 2464, section 7.
var (
	allNodes    = []byte{0xff, 0x02, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}
	allNodesEth = []byte{0x33, 0x33, 0, 0, 0, 1}
)

// advertise returns the Neighbor Advertisement that answers a Neighbor Solicitation. Its Ethernet source and the
// link-layer address in it are placeholders that the nested actions of the logical flow overwrite.
//
// A solicitation from the unspecified address asks whether the address is free (duplicate address detection). Its
// answer goes to all nodes and is not marked as solicited, RFC 4861, section 7.2.4. OVN's pinctrl sends it to the
// unspecified address, where nobody listens: two ports then use the same address unnoticed.
func advertise(packet []byte, flags uint32) ([]byte, error) {
	const what = "neighbor solicitation"
	l3 := ethHeader
	if len(packet) < ethHeader {
		return nil, fmt.Errorf("%s: %d bytes", what, len(packet))
	}
	for range 2 {
		if t := be.Uint16(packet[l3-2:]); t != 0x8100 && t != 0x88a8 {
			break
		}
		if l3 += vlanHeader; len(packet) < l3 {
			return nil, fmt.Errorf("%s: %d bytes", what, len(packet))
		}
	}
	if t := be.Uint16(packet[l3-2:]); t != 0x86dd {
		return nil, fmt.Errorf("%s: EtherType %#04x", what, t)
	}
	if len(packet) < l3+ip6Header+ndHeader {
		return nil, fmt.Errorf("%s: %d bytes", what, len(packet))
	}
	ip, nd := packet[l3:], packet[l3+ip6Header:]
	if ip[0]>>4 != 6 || ip[6] != 58 || ip[7] != 255 || nd[0] != 135 || nd[1] != 0 {
		return nil, fmt.Errorf("%s: version %d, next header %d, hop limit %d, type %d, code %d", what, ip[0]>>4, ip[6], ip[7], nd[0], nd[1])
	}
	target := nd[8:24]
	if target[0] == 0xff {
		return nil, fmt.Errorf("%s: multicast target", what)
	}
	asker, eth := ip[8:24], packet[6:12]
	if allZero(asker) {
		asker, eth = allNodes, allNodesEth
		flags &^= flagSolicited
	}

	out := make([]byte, 0, l3+ip6Header+ndHeader+llaOption)
	out = append(out, eth...)
	out = append(out, packet[0:6]...)
	out = append(out, packet[12:l3]...)
	out = append(out, 0x60, 0, 0, 0, 0, ndHeader+llaOption, 58, 255)
	out = append(out, target...)
	out = append(out, asker...)
	icmp := len(out)
	out = append(out, 136, 0, 0, 0)
	out = be.AppendUint32(out, flags)
	out = append(out, target...)
	out = append(out, 2, 1) // target link-layer address, 8 bytes
	out = append(out, packet[0:6]...)
	be.PutUint16(out[icmp+2:], finish(sum(sum(pseudo(protoICMPv6, len(out)-icmp), out[icmp:]), out[icmp-32:icmp])))
	return out, nil
}

func allZero(b []byte) bool { return !slices.ContainsFunc(b, func(x byte) bool { return x != 0 }) }
