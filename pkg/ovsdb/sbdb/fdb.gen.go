// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const FDBTable = "FDB"

// FDB defines an object in FDB table
type FDB struct {
	UUID    string `ovsdb:"_uuid"`
	DpKey   int    `ovsdb:"dp_key"`
	MAC     string `ovsdb:"mac"`
	PortKey int    `ovsdb:"port_key"`
}
