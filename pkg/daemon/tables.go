package daemon

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/vswitchdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// SouthboundTables are the tables and columns a chassis reads. Columns that change for others' reasons only, such as
// external_ids, are left out: each of their changes would wake every node.
func SouthboundTables() []ovsdb.Table {
	return []ovsdb.Table{
		{Name: sbdb.SBGlobalTable, Row: sbdb.SBGlobal{}, Columns: []string{"nb_cfg", "options", "ipsec"}},
		{Name: sbdb.ChassisTable, Row: sbdb.Chassis{}, Columns: []string{"name", "hostname", "encaps", "other_config", "transport_zones"}},
		{Name: sbdb.ChassisPrivateTable, Row: sbdb.ChassisPrivate{}, Columns: []string{"name", "chassis", "nb_cfg", "nb_cfg_timestamp"}},
		{Name: sbdb.EncapTable, Row: sbdb.Encap{}},
		{Name: sbdb.DatapathBindingTable, Row: sbdb.DatapathBinding{}, Columns: []string{"tunnel_key", "external_ids"}},
		{Name: sbdb.PortBindingTable, Row: sbdb.PortBinding{}, Columns: []string{
			"logical_port", "type", "datapath", "tunnel_key", "parent_port", "tag", "chassis", "additional_chassis",
			"encap", "additional_encap", "requested_chassis", "requested_additional_chassis", "ha_chassis_group",
			"options", "mac", "port_security", "up", "virtual_parent",
		}},
		{Name: sbdb.LogicalFlowTable, Row: sbdb.LogicalFlow{}, Columns: []string{
			"logical_datapath", "logical_dp_group", "pipeline", "table_id", "priority", "match", "actions", "tags", "controller_meter",
		}},
		{Name: sbdb.LogicalDPGroupTable, Row: sbdb.LogicalDPGroup{}},
		{Name: sbdb.MulticastGroupTable, Row: sbdb.MulticastGroup{}},
		{Name: sbdb.AddressSetTable, Row: sbdb.AddressSet{}},
		{Name: sbdb.PortGroupTable, Row: sbdb.PortGroup{}},
		{Name: sbdb.MACBindingTable, Row: sbdb.MACBinding{}, Columns: []string{"logical_port", "ip", "mac", "datapath"}},
		{Name: sbdb.StaticMACBindingTable, Row: sbdb.StaticMACBinding{}},
		{Name: sbdb.FDBTable, Row: sbdb.FDB{}, Columns: []string{"mac", "dp_key", "port_key"}},
		{Name: sbdb.HAChassisGroupTable, Row: sbdb.HAChassisGroup{}, Columns: []string{"name", "ha_chassis", "ref_chassis"}},
		{Name: sbdb.HAChassisTable, Row: sbdb.HAChassis{}, Columns: []string{"chassis", "priority"}},
		{Name: sbdb.MeterTable, Row: sbdb.Meter{}},
		{Name: sbdb.MeterBandTable, Row: sbdb.MeterBand{}},
	}
}

// rowCounts returns how many rows are known of the large tables.
func rowCounts(s *sb.Store) map[string]int {
	return map[string]int{
		sbdb.ChassisTable:         len(s.Chassis),
		sbdb.DatapathBindingTable: len(s.Datapaths),
		sbdb.PortBindingTable:     len(s.Ports),
		sbdb.LogicalFlowTable:     len(s.LogicalFlows),
		sbdb.LogicalDPGroupTable:  len(s.DatapathGroups),
		sbdb.MulticastGroupTable:  len(s.MulticastGroups),
		sbdb.AddressSetTable:      len(s.AddressSets),
		sbdb.PortGroupTable:       len(s.PortGroups),
		sbdb.MACBindingTable:      len(s.MACBindings),
		sbdb.FDBTable:             len(s.FDBs),
	}
}

// SwitchTables are the tables and columns of the local Open_vSwitch database that a chassis reads.
func SwitchTables() []ovsdb.Table {
	return []ovsdb.Table{
		{Name: vswitchdb.OpenvSwitchTable, Row: vswitchdb.OpenvSwitch{}, Columns: []string{"bridges", "external_ids", "other_config", "iface_types", "datapaths", "ssl", "ovs_version"}},
		{Name: vswitchdb.BridgeTable, Row: vswitchdb.Bridge{}, Columns: []string{"name", "ports", "fail_mode", "datapath_type", "external_ids", "other_config"}},
		{Name: vswitchdb.PortTable, Row: vswitchdb.Port{}, Columns: []string{"name", "interfaces", "external_ids"}},
		{Name: vswitchdb.InterfaceTable, Row: vswitchdb.Interface{}, Columns: []string{
			"name", "type", "options", "ofport", "external_ids", "mtu", "bfd", "bfd_status",
		}},
		{Name: vswitchdb.DatapathTable, Row: vswitchdb.Datapath{}, Columns: []string{"capabilities"}},
		{Name: vswitchdb.SSLTable, Row: vswitchdb.SSL{}, Columns: []string{"private_key", "certificate", "ca_cert"}},
	}
}

// Operations turns the chassis' writes into OVSDB operations.
func Operations(ops []chassis.Op) []ovsdb.Operation {
	var out []ovsdb.Operation
	for _, op := range ops {
		only := func(o ovsdb.Operation) { out = append(out, ovsdb.OnlyIf(o, columns(op.Where))) }
		switch op.Kind {
		case chassis.Insert:
			out = append(out, ovsdb.InsertRow(op.Table, op.Name, columns(op.Set)))
		case chassis.Update:
			only(ovsdb.UpdateRow(op.Table, op.UUID, columns(op.Set)))
		case chassis.Delete:
			only(ovsdb.DeleteRow(op.Table, op.UUID))
		case chassis.Mutate:
			for _, col := range sortedKeys(op.Remove) {
				only(ovsdb.DeleteElements(op.Table, op.UUID, col, column(op.Remove[col])))
			}
			for _, col := range sortedKeys(op.Add) {
				only(ovsdb.InsertElements(op.Table, op.UUID, col, column(op.Add[col])))
			}
		}
	}
	return out
}

func columns(in map[string]any) map[string]any {
	out := make(map[string]any, len(in))
	for k, v := range in {
		out[k] = column(v)
	}
	return out
}

// column turns a column value of package chassis into one of package ovsdb.
func column(v any) any {
	switch v := v.(type) {
	case nil:
		return []string(nil)
	case chassis.Ref:
		return reference(v)
	case []chassis.Ref:
		refs := make([]ovsdb.Ref, len(v))
		for i, r := range v {
			refs[i] = reference(r)
		}
		return refs
	case map[string]chassis.Ref:
		refs := make(map[string]ovsdb.Ref, len(v))
		for k, r := range v {
			refs[k] = reference(r)
		}
		return refs
	case string, bool, int64, []string, map[string]string:
		return v
	}
	panic(fmt.Sprintf("daemon: column value of type %T", v))
}

func reference(r chassis.Ref) ovsdb.Ref {
	if r.Name != "" {
		return ovsdb.Ref(r.Name)
	}
	return ovsdb.Ref(r.UUID)
}

// conditions turns the clauses of a plan into monitor conditions for every table that can have some: with a nil plan,
// or for a table that the plan does not name, all rows are wanted.
func conditions(plan map[string][]chassis.Clause, known map[string]bool) map[string][]ovsdb.Condition {
	out := map[string][]ovsdb.Condition{}
	for table := range known {
		out[table] = []ovsdb.Condition{ovsdb.True()}
	}
	for table, clauses := range plan {
		if !known[table] {
			continue
		}
		list := []ovsdb.Condition{}
		for _, c := range clauses {
			list = append(list, clause(c))
		}
		out[table] = list
	}
	return out
}

func clause(c chassis.Clause) ovsdb.Condition {
	switch c.Function {
	case "==":
		return ovsdb.Equal(c.Column, column(c.Value))
	case "!=":
		return ovsdb.NotEqual(c.Column, column(c.Value))
	case "includes":
		return ovsdb.Includes(c.Column, column(c.Value))
	case "":
		return ovsdb.True()
	}
	panic("daemon: condition function " + c.Function)
}
