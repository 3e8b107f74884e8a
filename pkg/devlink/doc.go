// Package devlink asks the drivers of NICs for devices, ports, their functions and rates, and tells of changes.
//
// A device is named by a [Handle], a port of it by a [PortHandle]; both are stable as long as the thing exists, which names and
// indices of network devices are not. Requests go through a [Conn], changes come from a [Monitor]. What the kernel said is returned as
// it is, and what it refused as an [Error].
//
// Enumerations are the kernel's values plus one. So their zero value means that the kernel did not say, and in requests that it is to be
// left as it is. Kernels differ in what they say: what is not known here is passed over, what is missing is zero.
//
// Sources: linux/devlink.h, net/devlink, Documentation/networking/devlink, devlink(8) and its subcommands' pages.
package devlink
