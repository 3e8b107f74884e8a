package compile

import "github.com/offloadd/offloadd/pkg/logical"

// punt encodes the actions that the controller executes. None of them is answered here, so a flow that has one is not
// installed: punting packets that nobody answers would make the switch believe they are taken care of.
func (o *encoding) punt(a logical.Action) error {
	return &Unsupported{logical.Verb(a), "no controller answers it"}
}
