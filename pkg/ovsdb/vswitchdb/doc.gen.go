// Code generated from Open_vSwitch 8.3.1 (Debian 12, openvswitch 3.1.0) by libovsdb's modelgen; DO NOT EDIT.

// Package vswitchdb has one struct per table of the Open_vSwitch database, with the columns of schema version 8.3.1.
//
// References to rows are UUIDs in text form. An optional column is a pointer, nil when it is
// empty; a set is a slice in ascending order; an empty set or map is nil.
package vswitchdb

// Database is the name of the database.
const Database = "Open_vSwitch"

// SchemaVersion is the version of the schema that the structs describe.
const SchemaVersion = "8.3.1"
