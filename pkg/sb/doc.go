// Package sb turns Southbound rows into the snapshot of what concerns this chassis, and into the delta between
// two snapshots.
//
// Rows come in as the generated types of pkg/ovsdb/sbdb and leave as the types of this package, checked: a row
// whose values no chassis can use (a tunnel key out of range, an unknown pipeline) is refused with an error that
// names table, row and reason, and is treated as absent. A [Store] belongs to one goroutine. The rows it hands out
// are never written again: a change replaces the row.
package sb
