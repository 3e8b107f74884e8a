// Package simnic is a simulated NIC in switchdev mode: a kernel module, and typed access to its knobs from a program in the same
// guest. README.md says what it simulates and what not.
package simnic
