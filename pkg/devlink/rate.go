package devlink

import (
	"fmt"
	"strings"
)

// A RateHandle names what has a rate: a function, by its port, or a node that groups such.
type RateHandle struct {
	Handle
	Node string // "": the function behind Port
	Port uint32
}

// Rate is the handle of the rate of the function behind a port.
func (h PortHandle) Rate() RateHandle { return RateHandle{Handle: h.Handle, Port: h.Index} }

// Node is the handle of a device's rate node. Its name is more than a number.
func (h Handle) Node(name string) RateHandle { return RateHandle{Handle: h, Node: name} }

// String returns it as devlink(8) prints and takes it.
func (h RateHandle) String() string {
	if h.Node != "" {
		return h.Handle.String() + "/" + h.Node
	}
	return h.Handle.Port(h.Port).String()
}

// A Rate is how fast a function, or all below a node, may send. Linux has priority and weight since 6.4.
type Rate struct {
	RateHandle
	TxShare  uint64 // in bytes a second, at least this; 0: nothing is promised
	TxMax    uint64 // in bytes a second, at most this; 0: without limit
	Priority uint32 // among siblings, the larger first
	Weight   uint32 // among siblings of a priority
	Parent   string // the node above, "": none
}

// A RateChange is what is to be changed of a rate; nil: nothing.
type RateChange struct {
	TxShare, TxMax   *uint64 // in bytes a second
	Priority, Weight *uint32
	Parent           *string // "": none; from one parent to another goes through none
}

func decodeRate(b []byte) *Rate {
	r := &Rate{}
	walk(b, func(typ uint16, data []byte) {
		r.decode(typ, data)
		switch typ {
		case attrPortIndex:
			r.Port = u32(data)
		case attrRateNodeName:
			r.Node = text(data)
		case attrRateTxShare:
			r.TxShare = number(data)
		case attrRateTxMax:
			r.TxMax = number(data)
		case attrRateTxPriority:
			r.Priority = u32(data)
		case attrRateTxWeight:
			r.Weight = u32(data)
		case attrRateParentNodeName:
			r.Parent = text(data)
		}
	})
	return r
}

// String returns it as devlink port function rate show prints it, but with rates in bps, bytes a second, as they are.
func (r *Rate) String() string {
	typ := "leaf"
	if r.Node != "" {
		typ = "node"
	}
	words := []string{r.RateHandle.String() + ":", "type", typ}
	say := func(key string, value any, suffix string) { words = append(words, key, fmt.Sprint(value)+suffix) }
	if r.TxShare != 0 {
		say("tx_share", r.TxShare, "bps")
	}
	if r.TxMax != 0 {
		say("tx_max", r.TxMax, "bps")
	}
	if r.Priority != 0 {
		say("tx_priority", r.Priority, "")
	}
	if r.Weight != 0 {
		say("tx_weight", r.Weight, "")
	}
	if r.Parent != "" {
		say("parent", r.Parent, "")
	}
	return strings.Join(words, " ")
}

func ofRate(command uint8, text string, h RateHandle) request {
	if h.Node == "" {
		return ofPort(command, text, h.Handle.Port(h.Port))
	}
	r := of(command, text, h.Handle)
	r.text += "/" + h.Node
	r.data = appendString(r.data, attrRateNodeName, h.Node)
	return r
}

func changeRate(command uint8, text string, h RateHandle, c RateChange) request {
	r := ofRate(command, text, h)
	if c.TxShare != nil {
		r.say("tx_share %dbps", *c.TxShare)
		r.data = appendU64(r.data, attrRateTxShare, *c.TxShare)
	}
	if c.Priority != nil {
		r.say("tx_priority %d", *c.Priority)
		r.data = appendU32(r.data, attrRateTxPriority, *c.Priority)
	}
	if c.Weight != nil {
		r.say("tx_weight %d", *c.Weight)
		r.data = appendU32(r.data, attrRateTxWeight, *c.Weight)
	}
	if c.TxMax != nil {
		r.say("tx_max %dbps", *c.TxMax)
		r.data = appendU64(r.data, attrRateTxMax, *c.TxMax)
	}
	if c.Parent != nil {
		if *c.Parent == "" {
			r.say("noparent")
		} else {
			r.say("parent %s", *c.Parent)
		}
		r.data = appendString(r.data, attrRateParentNodeName, *c.Parent)
	}
	return r
}
