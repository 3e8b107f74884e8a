// Package parity says whether two integration bridges hold the same flows, once what is arbitrary in
// them has been given canonical names.
//
// It is the oracle for the agent: whatever ovn-controller installs on br-int for a Southbound database,
// offloadd must install for the same chassis. Input is text, as ovs-ofctl(8) and ovs-vsctl(8) print it
// ([Dump]); [Normalise] renames what an agent is free to choose ([Bridge]); [Compare] lists what is left ([Report]).
//
// Free to choose, and therefore renamed: numbers of conjunctions and of their dimensions, group and meter ids,
// conntrack zones, OpenFlow ports, the tun_metadata field that stands for OVN's Geneve option, the order of adjacent
// outputs. Everything else is compared as text: table, priority, match, mask, action, timeouts and cookie.
//
// The contents that are compared in this project's own tests are in the package content below; the command that
// compares two live bridges is flowdiff.
package parity
