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
	OpNDNA       Opcode = 3
	OpLog        Opcode = 7
	OpNDNARouter Opcode = 12
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
		nested, err := o.nested(a.Nested)
		if err != nil {
			return err
		}
		o.controller(openflow.AppendActions(userData(op), nested), o.ControllerMeter)
		return nil
	}
	return &Unsupported{logical.Verb(a), unanswered}
}

// userData returns the header of user data.
func userData(op Opcode) []byte { return binary.BigEndian.AppendUint64(nil, uint64(op)<<32) }

// log is not limited by the flow's controller_meter but by its own.
func (o *encoding) log(a logical.Log) {
	data := append(userData(OpLog), byte(a.Verdict), byte(a.Severity))
	o.controller(append(data, a.Name...), a.Meter)
}

// controller hands the packet to the controller, as often as a row of Meter allows; "": always.
//
// If there is no such row the packet is not limited, but the rest of the flow's actions is done. That is what ovn-controller's
// flows do, too, which name a meter that is missing: Open vSwitch looks for it when a flow is added, and then only.
func (o *encoding) controller(data []byte, meter string) {
	c := ir.Controller{MaxLen: 0xffff, UserData: data}
	if meter != "" {
		c.MeterID = o.NamedMeter(meter)
	}
	o.add(c)
}
