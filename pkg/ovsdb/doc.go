// Package ovsdb speaks OVSDB: it connects, fails over, monitors conditionally and transacts.
//
// A [Client] keeps a copy of the wanted part of one database. What goes in are
// [Config.Tables], conditions and transactions; what comes out are [Update]
// values, each the difference between two complete and consistent contents.
// Rows are the generated structs of the packages sbdb and vswitchdb; once
// published they never change.
//
// The protocol is RFC 7047 with the extensions of ovsdb-server(7): conditional
// monitoring, resumption after a known transaction, and awareness of clusters
// through the _Server database. Wire types come from libovsdb, as do the
// generated rows. Its client does not: it has no monitor_cond_change, reloads
// everything when a connection with several monitors breaks, and decoding a
// large Southbound database with it takes almost three times the CPU of the C
// library. The session here is therefore our own; the decoder turns the byte
// stream straight into the generated structs while it arrives.
package ovsdb
