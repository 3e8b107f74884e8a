// Package vm runs one program in a guest kernel on this machine: the host's file system and programs, another kernel.
//
// There are two kernels and one way to use them. QEMU boots the kernel image that Debian ships, with its modules:
// what users run. UML is a user-mode kernel built from Debian's source of the same release with uml.config, which has what
// Debian leaves out (NET_TC_SKB_EXT, netdevsim) and runs at native speed, on one CPU.
//
// A guest's root is the host's, read-only, under a writable layer that is thrown away. /tmp, /run and /var/log are
// empty, except that the directory of the program and the working directory are there. What the program writes
// into Job.Results is the only thing that stays. There is no network but what the program makes.
//
// Kernels are made when they are first used, and kept in a cache (Cache).
package vm
