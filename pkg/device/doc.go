// Package device keeps account of the functions of the node's NICs: which there are, what they are set to, and who has them.
//
// A function is a VF or an SF. It is acquired from a pool, configured, used by one owner at a time, and released. Before another owner
// gets it, everything that was set is restored, and read back. What cannot be verified is quarantined, with a reason.
//
// What an owner has to know to release its function after a restart is in the Function that Acquire returns, which the owner writes down,
// and gives back by Claim. Until Reconciled nobody gets a function, and none is removed. Only what is quarantined, which has no owner, is
// written down here, if there is a file for it.
//
// What the kernel tells is put together in a world, in any order; a book says who has what, by a table of states. Both are pure. Doors are
// kernel.go and sysfs.go, the Inventory, and its workers, one for each device.
package device
