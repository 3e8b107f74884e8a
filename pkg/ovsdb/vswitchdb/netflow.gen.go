// Code generated from Open_vSwitch 8.3.1 (Debian 12, openvswitch 3.1.0) by libovsdb's modelgen; DO NOT EDIT.

package vswitchdb

const NetFlowTable = "NetFlow"

// NetFlow defines an object in NetFlow table
type NetFlow struct {
	UUID             string            `ovsdb:"_uuid"`
	ActiveTimeout    int               `ovsdb:"active_timeout"`
	AddIDToInterface bool              `ovsdb:"add_id_to_interface"`
	EngineID         *int              `ovsdb:"engine_id"`
	EngineType       *int              `ovsdb:"engine_type"`
	ExternalIDs      map[string]string `ovsdb:"external_ids"`
	Targets          []string          `ovsdb:"targets"`
}
