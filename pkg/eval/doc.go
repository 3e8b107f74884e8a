// Package eval runs packets through an [ir] program, or through tc filters: the reference interpreter.
//
// It does what ovs-vswitchd does with a packet that no datapath flow matches: look it up in table 0, execute the actions
// of the rule it meets, and later what the connection tracker sends back. It is written to be read, not to be
// fast: a lookup tries the rules of a table one after the other. What only a switch knows, like the state of a
// connection or a port's liveness, is given as an assumption ([Options]).
//
// A [Block] is the same for the filters of pkg/tc: it does with a packet what the kernel's software does, with its oddities.
//
// Semantics are those of ovs-fields(7) and ovs-actions(7), limits those of ofproto/ofproto-dpif-xlate.c.
package eval
