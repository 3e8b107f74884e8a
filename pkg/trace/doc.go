// Package trace tells what becomes of a packet: it runs a microflow through the rules of a chassis, and says it in the words of
// the logical network.
//
// The format is that of ovn-trace(8), but what is traced is the program that this chassis compiled: tables, rules and conntrack
// zones are those of its bridge, and ports of other chassis are a tunnel away. Nothing is sent.
package trace
