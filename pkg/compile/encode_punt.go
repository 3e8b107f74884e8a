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
	OpNDNARouter Opcode = 12
)

// OpcodeHeader is the length in bytes of struct action_header: the opcode in network byte order, and padding.
const OpcodeHeader = 8

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
	r, ok := a.(logical.Reply)
	op, known := answered[r.Kind]
	if !ok || !known {
		return &Unsupported{logical.Verb(a), unanswered}
	}
	nested, err := o.nested(r.Nested)
	if err != nil {
		return err
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(op))
	data = append(data, 0, 0, 0, 0)
	o.add(ir.Controller{MaxLen: 0xffff, UserData: openflow.AppendActions(data, nested), MeterID: o.ControllerMeter})
	return nil
}
