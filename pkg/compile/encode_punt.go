package compile

import (
	"encoding/binary"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// Opcode is what the user data of a controller action begins with, enum action_opcode of OVN. The numbers are private
// to the chassis; they are OVN's so that people find what they know in the flows.
type Opcode uint32

// The opcodes that pkg/pinctrl answers.
const (
	OpNDNA            Opcode = 3
	OpLog             Opcode = 7
	OpICMP            Opcode = 10 // icmp4 and icmp6
	OpTCPReset        Opcode = 11
	OpNDNARouter      Opcode = 12
	OpPutICMP4FragMTU Opcode = 13 // among the nested actions of OpICMP and OpICMP4Error
	OpICMP4Error      Opcode = 14
	OpICMP6Error      Opcode = 20
	OpPutICMP6FragMTU Opcode = 21 // among the nested actions of OpICMP and OpICMP6Error
	OpReject          Opcode = 22
	OpSCTPAbort       Opcode = 24
)

// OpcodeHeader is the length in bytes of struct action_header: the opcode in network byte order, and padding.
const OpcodeHeader = 8

// LogHeader is the length in bytes of struct log_pin_header: verdict and severity. The name follows it.
const LogHeader = 2

// answered says which replies pkg/pinctrl makes. A flow with another one is not installed: punting packets that nobody
// answers would make the switch believe they are taken care of.
var answered = map[logical.ReplyVerb]Opcode{
	logical.NDNA:       OpNDNA,
	logical.NDNARouter: OpNDNARouter,
	logical.ICMP4:      OpICMP,
	logical.ICMP4Error: OpICMP4Error,
	logical.ICMP6:      OpICMP,
	logical.ICMP6Error: OpICMP6Error,
	logical.TCPReset:   OpTCPReset,
	logical.SCTPAbort:  OpSCTPAbort,
	logical.Reject:     OpReject,
}

// unanswered is why an action that the controller executes is unsupported.
const unanswered = "no controller answers it"

// punt encodes the actions that the controller executes.
func (o *encoding) punt(a logical.Action) error {
	switch a := a.(type) {
	case logical.Log:
		o.log(a)
		return nil
	case logical.Reply:
		op, known := answered[a.Kind]
		if !known {
			break
		}
		inner := encoding{encodeContext: o.encodeContext, at: o.at, icmp: op == OpICMP || op == OpICMP4Error || op == OpICMP6Error}
		if err := inner.list(a.Nested); err != nil {
			return err
		}
		o.controller(openflow.AppendActions(userData(op), inner.actions), false, o.ControllerMeter)
		return nil
	case logical.LoadOVNField:
		if !o.icmp {
			return &Unsupported{logical.Verb(a), "only what icmp4, icmp6 and their errors make has an MTU"}
		}
		o.fragMTU(a)
		return nil
	}
	return &Unsupported{logical.Verb(a), unanswered}
}

// userData returns the header of user data.
func userData(op Opcode) []byte { return binary.BigEndian.AppendUint64(nil, uint64(op)<<32) }

// log is not limited by the flow's controller_meter but by its own.
func (o *encoding) log(a logical.Log) {
	data := append(userData(OpLog), byte(a.Verdict), byte(a.Severity))
	o.controller(append(data, a.Name...), false, a.Meter)
}

// fragMTU writes the MTU into an ICMP error. As a controller action it would let the error come back once more;
// pkg/pinctrl sees it when it makes the error, and does it then.
func (o *encoding) fragMTU(a logical.LoadOVNField) {
	mtu := a.Value.Value.Lo
	if a.Dst.Symbol.OVNField == logical.ICMP4FragMTU {
		o.controller(binary.BigEndian.AppendUint16(userData(OpPutICMP4FragMTU), uint16(mtu)), true, o.ControllerMeter)
	} else {
		o.controller(binary.BigEndian.AppendUint32(userData(OpPutICMP6FragMTU), uint32(mtu)), true, o.ControllerMeter)
	}
}

// controller hands the packet to the controller, as often as a row of Meter allows; "": always. If pause is set the
// controller says when and how the packet goes on.
//
// If there is no such row the packet is not limited, but the rest of the flow's actions is done. That is what ovn-controller's
// flows do, too, which name a meter that is missing: Open vSwitch looks for it when a flow is added, and then only.
func (o *encoding) controller(data []byte, pause bool, meter string) {
	c := ir.Controller{MaxLen: 0xffff, UserData: data, Pause: pause}
	if meter != "" {
		c.MeterID = o.NamedMeter(meter)
	}
	o.add(c)
}
