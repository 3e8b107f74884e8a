// Package offload measures who forwards the packets of a lab on the kernel's datapath: TC filters or Open vSwitch.
//
// A [Rig] is a lab with a policy, [Paths] are the ways between its workloads, [Rig.Count] reads the counters of both sides,
// and [Transfer] and [Exchange] make traffic. Its tests run in the guests of integration/vm: `make test-vm`.
package offload
