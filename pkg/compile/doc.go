// Package compile turns logical flows, bindings and the physical layer into an [ir.Rule] program.
//
// Its input is what pkg/sb knows of the Southbound and what pkg/chassis knows of this chassis. Each row that makes
// rules is a unit; what a unit reads while it is compiled is recorded, so a later change recompiles exactly the
// units that read what changed. Table numbers, registers, priorities and cookies are those of OVN 23.03, so that
// ovn-trace(8), ovn-detrace(1) and people's habits keep working.
package compile
