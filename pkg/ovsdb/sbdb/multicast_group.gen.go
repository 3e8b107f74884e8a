// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const MulticastGroupTable = "Multicast_Group"

// MulticastGroup defines an object in Multicast_Group table
type MulticastGroup struct {
	UUID      string   `ovsdb:"_uuid"`
	Datapath  string   `ovsdb:"datapath"`
	Name      string   `ovsdb:"name"`
	Ports     []string `ovsdb:"ports"`
	TunnelKey int      `ovsdb:"tunnel_key"`
}
