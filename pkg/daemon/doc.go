// Package daemon starts, supervises and stops tasks, and connects the rooms: it carries what the databases say to the
// compiler, what the compiler says to the bridge, and what the chassis decides back to the databases.
package daemon
