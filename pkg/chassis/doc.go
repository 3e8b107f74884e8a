// Package chassis decides what this chassis is and what it must write: its own record, claims, tunnel ports,
// conntrack zones, and the datapaths that are local.
//
// What goes in is [Inputs]: the two databases as they are now, and how far the flows of earlier turns have been
// installed. What comes out is a [Plan]: operations for both databases, the monitor conditions, the zones to
// flush, and [Local], all the compiler must know of this chassis. [State.Step] compares what should be with what
// is, so it may be called at any time and any number of times; once the databases agree with the plan it has no
// operations left. What it remembers between calls is what no database says: which claims still wait for their
// flows, which zones are in use, which nb_cfg has been installed.
//
// Not knowing is not wanting nothing: until the Southbound contents are complete nothing is released, deleted or
// pruned.
//
// The behaviour is that of ovn-controller 23.03, ovn-controller(8); the tables are those of ovn-sb(5) and
// ovs-vswitchd.conf.db(5).
package chassis
