// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

// Package sbdb has one struct per table of the OVN_Southbound database, with the columns of schema version 20.27.0.
//
// References to rows are UUIDs in text form. An optional column is a pointer, nil when it is
// empty; a set is a slice in ascending order; an empty set or map is nil.
package sbdb

// Database is the name of the database.
const Database = "OVN_Southbound"

// SchemaVersion is the version of the schema that the structs describe.
const SchemaVersion = "20.27.0"
