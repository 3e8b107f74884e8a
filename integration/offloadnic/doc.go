// Package offloadnic has the filters of a node on a NIC that says yes and no: the lab of package offload, whose first node is a guest with the
// simulated NIC of package simnic and has its pods on VFs.
package offloadnic
