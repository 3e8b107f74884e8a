// Code generated from OVN_Southbound 20.27.0 (Debian 12, ovn 23.03.1) by libovsdb's modelgen; DO NOT EDIT.

package sbdb

const DatapathBindingTable = "Datapath_Binding"

// DatapathBinding defines an object in Datapath_Binding table
type DatapathBinding struct {
	UUID          string            `ovsdb:"_uuid"`
	ExternalIDs   map[string]string `ovsdb:"external_ids"`
	LoadBalancers []string          `ovsdb:"load_balancers"`
	TunnelKey     int               `ovsdb:"tunnel_key"`
}
