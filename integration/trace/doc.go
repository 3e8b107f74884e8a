// Package trace compares what pkg/eval and pkg/trace say of packets with what ofproto/trace of ovs-vswitchd(8) and ovn-trace(8) say.
package trace
