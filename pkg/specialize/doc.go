// Package specialize turns the program of a bridge and what is known at a port into small chains of rules without registers.
//
// It is partial evaluation. The walk begins with a packet of which only the port and the address family are known, runs the
// OpenFlow rules on it as Open vSwitch would, and branches where a rule asks for something that only the packet can tell:
// a cube, the conjunction of what was asked, grows on the way. Registers are constants or stand for bits of the packet that
// has arrived. A path ends in a leaf: drop, output, or punt, which leaves the packet to Open vSwitch. Leaves come out in the
// order of the walk, and the first that matches is the one that Open vSwitch would have found.
//
// Where the connection tracker is asked the chain ends and another one begins: a [State] is what is known there, and its chain.
// A state is shared by all paths that differ only in what nothing reads any more. What a chain has read of the state that it
// began with is recorded while it is walked.
//
// The laws, which tests hold it to:
//
//   - A packet gets what Open vSwitch gives it, or is punted.
//   - A punt is of the packet as it arrived: rewrites are symbolic until the last rule, together with the output.
//   - Nothing is installed that flower cannot express. What it cannot is a punt with a [Reason].
//
// The package is pure. [Program.Filters] lowers the chains to the filters of pkg/tc.
package specialize
