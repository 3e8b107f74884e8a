// Package integration tests a chassis agent on real Open vSwitch and OVN, in network namespaces of this machine:
// that it takes part in a cluster beside ovn-controller, and that it survives what happens to its neighbours.
//
// go test ./integration -agent ovn-controller runs the same tests on the distribution's agent.
package integration
