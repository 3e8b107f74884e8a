// Package device keeps account of the functions of the node's NICs: which there are, what they are set to, and who has them.
//
// A function is a VF or an SF. It is acquired from a pool, configured, used by one owner at a time, and released. Before another owner
// gets it, everything that was set is restored, and read back. What cannot be verified is quarantined, with a reason.
//
// Nothing here lasts: what an owner has to know to release its function after a restart is in the Function that Acquire returns, which the
// owner writes down, and gives back by Claim. Until Reconciled nobody gets a function, and none is removed.
package device
