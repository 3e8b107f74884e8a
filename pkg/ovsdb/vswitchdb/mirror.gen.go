// Code generated from Open_vSwitch 8.3.1 (Debian 12, openvswitch 3.1.0) by libovsdb's modelgen; DO NOT EDIT.

package vswitchdb

const MirrorTable = "Mirror"

// Mirror defines an object in Mirror table
type Mirror struct {
	UUID          string            `ovsdb:"_uuid"`
	ExternalIDs   map[string]string `ovsdb:"external_ids"`
	Name          string            `ovsdb:"name"`
	OutputPort    *string           `ovsdb:"output_port"`
	OutputVLAN    *int              `ovsdb:"output_vlan"`
	SelectAll     bool              `ovsdb:"select_all"`
	SelectDstPort []string          `ovsdb:"select_dst_port"`
	SelectSrcPort []string          `ovsdb:"select_src_port"`
	SelectVLAN    []int             `ovsdb:"select_vlan"`
	Snaplen       *int              `ovsdb:"snaplen"`
	Statistics    map[string]int    `ovsdb:"statistics"`
}
