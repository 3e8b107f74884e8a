// Package devports tests ports that are made of functions of a NIC, on the simulated NIC of integration/simnic, in a guest: pods by
// cnitool, what is left when the daemon is killed at every step, and what becomes of ports when namespaces, devices or the node go away.
package devports
