package pinctrl

import (
	"errors"
	"fmt"

	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
)

// ErrSilence is in the errors of [Answer] for packets that the RFCs forbid to answer.
var ErrSilence = errors.New("not to be answered")

// Types of ICMP errors, and the codes that Destination Unreachable begins with: those of the host and of the port.
// RFC 792; RFC 4443, section 3.1.
const (
	icmp4Unreachable     = 3
	icmp4HostUnreachable = 1
	icmp4PortUnreachable = 3

	icmp6Unreachable     = 1
	icmp6Prohibited      = 1
	icmp6PortUnreachable = 4
)

// How long an ICMP error may be, from its IP header on: RFC 1812, section 4.3.2.3; RFC 4443, section 2.4 (c).
const (
	longestICMP4 = 576
	longestICMP6 = 1280
)

// mayAnswer returns an error if an ICMP error or a reset must not answer f: RFC 1812, section 4.3.2.7; RFC 4443, section
// 2.4 (e). tooBig says that the answer is a Packet Too Big of IPv6, which multicasts get, too.
func (f *frame) mayAnswer(tooBig bool) error {
	silence := func(why string) error { return fmt.Errorf("%s from %v to %v: %w", why, f.src, f.dst, ErrSilence) }
	switch {
	case !f.isIP():
		return fmt.Errorf("EtherType %#04x", f.etherType)
	case f.fragment == laterFragment:
		return silence("later fragment")
	case !tooBig && (f.b[0]&1 != 0 || f.dst.IsMulticast() || f.dst == broadcast4):
		return silence("multicast or broadcast")
	case f.src.IsUnspecified() || f.src.IsMulticast() || f.src.IsLoopback() || f.src.Is4() && f.src.As4()[0] >= 240:
		return silence("packet that no single host is the sender of")
	}
	return nil
}

// isICMPError reports whether f is an ICMP error or a redirect, which no ICMP error answers. What is too short to say so is
// taken for one.
func (f *frame) isICMPError() bool {
	const (
		quench, redirect4  = 4, 5
		exceeded, problem4 = 11, 12
		informational6     = 128
		redirect6          = 137
	)
	t := f.transport()
	switch {
	case f.etherType == etherIPv4 && f.proto == protoICMP:
		if len(t) == 0 {
			return true
		}
		switch t[0] {
		case icmp4Unreachable, quench, redirect4, exceeded, problem4:
			return true
		}
	case f.etherType == etherIPv6 && f.proto == protoICMPv6:
		return len(t) == 0 || t[0] < informational6 || t[0] == redirect6
	}
	return false
}

// icmpError returns the ICMP error that answers f. It is Destination Unreachable, with the code for ports if port is set and f
// is UDP; what the nested actions write makes another one of it. back says that they do not swap the addresses.
func (f *frame) icmpError(port bool, mtu uint32, back bool) ([]byte, error) {
	if err := f.mayAnswer(mtu != 0 && f.etherType == etherIPv6); err != nil {
		return nil, err
	}
	if f.isICMPError() {
		return nil, fmt.Errorf("ICMP error from %v to %v: %w", f.src, f.dst, ErrSilence)
	}
	port = port && f.proto == protoUDP
	quoted := f.b[f.l3:f.end]
	message := make([]byte, icmpHeader, icmpHeader+len(quoted))
	proto := uint8(protoICMP)
	if f.etherType == etherIPv4 {
		message[0], message[1] = icmp4Unreachable, icmp4HostUnreachable
		if port {
			message[1] = icmp4PortUnreachable
		}
		be.PutUint16(message[6:], uint16(mtu)) // RFC 1191, section 4
		message = append(message, quoted[:min(len(quoted), longestICMP4-ip4Header-icmpHeader)]...)
		be.PutUint16(message[2:], finish(sum(0, message)))
	} else {
		proto = protoICMPv6
		message[0], message[1] = icmp6Unreachable, icmp6Prohibited
		if port {
			message[1] = icmp6PortUnreachable
		}
		be.PutUint32(message[4:], mtu) // RFC 4443, section 3.2
		message = append(message, quoted[:min(len(quoted), longestICMP6-ip6Header-icmpHeader)]...)
		be.PutUint16(message[2:], f.checksum(proto, message))
	}
	return f.reply(proto, 255, message, back), nil
}

// takeMTU splits the write of an MTU off the nested actions of an ICMP error. mtu is 0 if there is none.
func takeMTU(nested []ir.Action) (rest []ir.Action, mtu uint32) {
	for _, a := range nested {
		if c, ok := a.(ir.Controller); ok && c.Pause {
			switch data := c.UserData; {
			case len(data) >= compile.OpcodeHeader+2 && opcode(data) == compile.OpPutICMP4FragMTU:
				mtu = uint32(be.Uint16(data[compile.OpcodeHeader:]))
				continue
			case len(data) >= compile.OpcodeHeader+4 && opcode(data) == compile.OpPutICMP6FragMTU:
				mtu = be.Uint32(data[compile.OpcodeHeader:])
				continue
			}
		}
		rest = append(rest, a)
	}
	return rest, mtu
}
