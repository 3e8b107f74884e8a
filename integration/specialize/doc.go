// Package specialize holds what pkg/specialize makes of programs against the programs themselves: the same packets through the rules,
// through the flows as bytes, and through the filters, with equal verdicts.
//
// A [Bench] is a topology with what is needed to judge filters for it. [Bench.Judge] draws packets from the boundaries of the
// topology's matches, and for each a connection tracker; a packet and its connections follow from a number, so that one that
// shows a mistake can be had again. Filters may forward a packet only as Open vSwitch would, drop only what it would drop, and
// must otherwise leave the packet as it came.
//
//	go test ./integration/specialize -v                                    # a summary of what is forwarded, dropped and passed
//	go test ./integration/specialize -specialize.seed=17                   # the same topologies and packets again
//	go test ./integration/specialize -v -run Right -specialize.topology=spec-cluster -specialize.packet=42   # and what the rules make of one
//
// In the tests there is a specialiser that cheats: it has seen the packets before. It shows that the judge lets pass what is right, and
// with mistakes in its filters that the judge finds them.
package specialize
