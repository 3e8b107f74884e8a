// Package openflow speaks OpenFlow 1.5 with the Nicira extensions of Open vSwitch: it turns the rules of
// [github.com/offloadd/offloadd/pkg/ir] into flows and groups, and changes and reads those of a bridge.
//
// A flow has three forms: the [ir.Rule], the text that "ovs-ofctl -O OpenFlow15 dump-flows" prints (format.go),
// and bytes (encode.go, decode.go). Bytes are canonical: AppendMatch, AppendActions and AppendGroup write exactly
// what Open vSwitch answers when it is asked for the flow or group. So installed and desired tables are compared
// as bytes, and a match's bytes are the key of its flow. message.go and packetin.go have the messages around them.
// All of this is pure; only conn.go touches a socket.
//
// The formats are those of the OpenFlow Switch Specification 1.5.1 and of Open vSwitch's
// include/openflow/nicira-ext.h, lib/nx-match.c, lib/ofp-actions.c and lib/ofp-group.c.
package openflow
