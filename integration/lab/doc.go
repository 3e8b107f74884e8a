// Package lab builds OVN deployments on one machine: the databases, ovn-northd, and nodes that each have
// an Open vSwitch with a selectable datapath and a selectable chassis agent.
//
// A node is a network namespace with its own ovsdb-server, ovs-vswitchd and agent. Nodes are joined by an
// Ethernet underlay, and by a management network to the databases where these are reached over TLS. A pod is
// another namespace whose only link is a port of its node's br-int. With the userspace datapath no kernel module is
// needed, only root and Debian's openvswitch-switch, ovn-central and ovn-host packages; three nodes start in about
// a second.
//
// Everything of one lab carries the lab's name: its directory (/tmp/NAME, with sockets, databases and logs) and
// its namespaces (NAME-NODE, NAME-POD). So several labs live on one machine, and what a killed
// run left behind is recognised and removed by the next one (Sweep). Daemons are children of the process
// that started the lab and die with it, unless Options.Keep says otherwise.
package lab
