package daemon

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/ovsdb"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

const (
	row1 = "00000000-0000-0000-0000-000000000001"
	row2 = "00000000-0000-0000-0000-000000000002"
)

// What the chassis writes, as RFC 7047 says it.
func TestOperations(t *testing.T) {
	for _, tt := range []struct {
		op   chassis.Op
		want []string
	}{
		{
			chassis.Op{Kind: chassis.Insert, Table: "Encap", Name: "row1", Set: map[string]any{
				"type": "geneve", "ip": "192.0.2.1", "options": map[string]string{"csum": "true"},
			}},
			[]string{`{"op":"insert","table":"Encap","row":{"ip":"192.0.2.1","options":["map",[["csum","true"]]],"type":"geneve"},"uuid-name":"row1"}`},
		},
		{
			chassis.Op{Kind: chassis.Insert, Table: "Chassis", Set: map[string]any{
				"encaps": []chassis.Ref{{Name: "row1"}, {UUID: row2}}, "nb_cfg": int64(3), "transport_zones": []string{"b", "a"},
			}},
			[]string{`{"op":"insert","table":"Chassis","row":{"encaps":["set",[["named-uuid","row1"],["uuid","` + row2 + `"]]],"nb_cfg":3,"transport_zones":["set",["b","a"]]}}`},
		},
		{
			chassis.Op{Kind: chassis.Update, Table: "Port_Binding", UUID: row1, Set: map[string]any{"chassis": chassis.Ref{UUID: row2}, "up": true}},
			[]string{`{"op":"update","table":"Port_Binding","row":{"chassis":["uuid","` + row2 + `"],"up":true},"where":[["_uuid","==",["uuid","` + row1 + `"]]]}`},
		},
		{
			chassis.Op{
				Kind: chassis.Update, Table: "Port_Binding", UUID: row1,
				Where: map[string]any{"up": false, "chassis": chassis.Ref{UUID: row2}}, Set: map[string]any{"chassis": nil},
			},
			[]string{`{"op":"update","table":"Port_Binding","row":{"chassis":["set",[]]},"where":[["_uuid","==",["uuid","` + row1 + `"]],["chassis","==",["uuid","` + row2 + `"]],["up","==",false]]}`},
		},
		{
			chassis.Op{
				Kind: chassis.Mutate, Table: "Interface", UUID: row1,
				Remove: map[string]any{"external_ids": []string{"a"}, "b": []chassis.Ref{{UUID: row2}}}, Add: map[string]any{"external_ids": map[string]string{"a": "1"}},
			},
			[]string{
				`{"op":"mutate","table":"Interface","mutations":[["b","delete",["set",[["uuid","` + row2 + `"]]]]],"where":[["_uuid","==",["uuid","` + row1 + `"]]]}`,
				`{"op":"mutate","table":"Interface","mutations":[["external_ids","delete",["set",["a"]]]],"where":[["_uuid","==",["uuid","` + row1 + `"]]]}`,
				`{"op":"mutate","table":"Interface","mutations":[["external_ids","insert",["map",[["a","1"]]]]],"where":[["_uuid","==",["uuid","` + row1 + `"]]]}`,
			},
		},
		{
			chassis.Op{Kind: chassis.Delete, Table: "Chassis", UUID: row1},
			[]string{`{"op":"delete","table":"Chassis","where":[["_uuid","==",["uuid","` + row1 + `"]]]}`},
		},
		{
			chassis.Op{Kind: chassis.Delete, Table: "Chassis", UUID: row1, Where: map[string]any{"name": "n1"}},
			[]string{`{"op":"delete","table":"Chassis","where":[["_uuid","==",["uuid","` + row1 + `"]],["name","==","n1"]]}`},
		},
	} {
		var got []string
		for _, op := range Operations([]chassis.Op{tt.op}) {
			text, err := json.Marshal(op)
			if err != nil {
				t.Fatalf("%s: %v", tt.op, err)
			}
			got = append(got, string(text))
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.op, diff)
		}
	}
}

// A server does what the operations say: one whose condition does not hold any more changes nothing, and the rest of the
// transaction is done.
func TestOperationsOnServer(t *testing.T) {
	server := ovsdbtest.Start(t, ovsdbtest.Southbound)
	server.Transact(Operations([]chassis.Op{
		{Kind: chassis.Insert, Table: "Encap", Name: "e", Set: map[string]any{"type": "geneve", "ip": "192.0.2.1", "chassis_name": "n1"}},
		{Kind: chassis.Insert, Table: "Chassis", Name: "n1", Set: map[string]any{"name": "n1", "encaps": []chassis.Ref{{Name: "e"}}}},
		{Kind: chassis.Insert, Table: "Encap", Name: "e2", Set: map[string]any{"type": "geneve", "ip": "192.0.2.2", "chassis_name": "n2"}},
		{Kind: chassis.Insert, Table: "Chassis", Name: "n2", Set: map[string]any{"name": "n2", "encaps": []chassis.Ref{{Name: "e2"}}}},
		{Kind: chassis.Insert, Table: "Datapath_Binding", Name: "dp", Set: map[string]any{"tunnel_key": int64(1)}},
		{Kind: chassis.Insert, Table: "Port_Binding", Set: map[string]any{
			"logical_port": "a", "datapath": chassis.Ref{Name: "dp"}, "tunnel_key": int64(1), "chassis": chassis.Ref{Name: "n1"},
		}},
		{Kind: chassis.Insert, Table: "Port_Binding", Set: map[string]any{
			"logical_port": "b", "datapath": chassis.Ref{Name: "dp"}, "tunnel_key": int64(2), "chassis": chassis.Ref{Name: "n2"},
		}},
	})...)
	uuid := func(table, where string) string { return server.Select(table, where)[0]["_uuid"].([]any)[1].(string) }
	n1 := uuid("Chassis", `[["name","==","n1"]]`)
	release := func(port string) chassis.Op {
		return chassis.Op{
			Kind: chassis.Update, Table: "Port_Binding", UUID: uuid("Port_Binding", `[["logical_port","==","`+port+`"]]`),
			Where: map[string]any{"chassis": chassis.Ref{UUID: n1}}, Set: map[string]any{"chassis": nil},
		}
	}
	server.Transact(Operations([]chassis.Op{
		release("b"), // which n2 has taken
		release("a"),
		{Kind: chassis.Mutate, Table: "Chassis", UUID: n1, Add: map[string]any{"other_config": map[string]string{"k": "v"}}},
		{Kind: chassis.Mutate, Table: "Chassis", UUID: n1, Remove: map[string]any{"other_config": []string{"k"}}, Add: map[string]any{"other_config": map[string]string{"k": "w"}}},
	})...)
	for _, tt := range []struct {
		port string
		free bool
	}{{"a", true}, {"b", false}} {
		row := server.Select("Port_Binding", `[["logical_port","==","`+tt.port+`"]]`)[0]
		if free := row["chassis"].([]any)[0] == "set"; free != tt.free {
			t.Errorf("port %s has chassis %v, want none: %v", tt.port, row["chassis"], tt.free)
		}
	}
	row := server.Select("Chassis", `[["name","==","n1"]]`)[0]
	if diff := cmp.Diff([]any{"map", []any{[]any{"k", "w"}}}, row["other_config"]); diff != "" {
		t.Errorf("other_config (-want +got):\n%s", diff)
	}
}

func TestConditions(t *testing.T) {
	known := map[string]bool{"Port_Binding": true, "Logical_Flow": true, "Chassis": true}
	plan := map[string][]chassis.Clause{
		"Port_Binding": {
			{Column: "type", Function: "==", Value: "patch"},
			{Column: "chassis", Function: "==", Value: chassis.Ref{UUID: row1}},
			{Column: "options", Function: "includes", Value: map[string]string{"l3gateway-chassis": "n1"}},
			{Column: "logical_dp_group", Function: "!=", Value: nil},
		},
		"Logical_Flow": {},
		"DNS":          {{}}, // not read here
		"Chassis":      {{}},
	}
	want := map[string]string{
		"Port_Binding": `[["type","==","patch"],["chassis","==",["uuid","` + row1 + `"]],["options","includes",["map",[["l3gateway-chassis","n1"]]]],["logical_dp_group","!=",["set",[]]]]`,
		"Logical_Flow": `[]`,
		"Chassis":      `[true]`,
	}
	if diff := cmp.Diff(want, texts(t, conditions(plan, known))); diff != "" {
		t.Errorf("conditions (-want +got):\n%s", diff)
	}
	everything := map[string]string{"Port_Binding": "[true]", "Logical_Flow": "[true]", "Chassis": "[true]"}
	if diff := cmp.Diff(everything, texts(t, conditions(nil, known))); diff != "" {
		t.Errorf("without a plan (-want +got):\n%s", diff)
	}
}

func texts(t *testing.T, in map[string][]ovsdb.Condition) map[string]string {
	t.Helper()
	out := map[string]string{}
	for table, list := range in {
		text, err := json.Marshal(list)
		if err != nil {
			t.Fatal(err)
		}
		out[table] = string(text)
	}
	return out
}

// The tables that the chassis selects rows of are read, and a row count is told of tables that are.
func TestTables(t *testing.T) {
	var names []string
	for _, table := range SouthboundTables() {
		names = append(names, table.Name)
	}
	for table := range rowCounts(sb.NewStore()) {
		if !slices.Contains(names, table) {
			t.Errorf("rows of %s are counted but not read", table)
		}
	}
	for _, must := range []string{sbdb.PortBindingTable, sbdb.LogicalFlowTable, sbdb.MACBindingTable, sbdb.MulticastGroupTable, sbdb.ChassisPrivateTable} {
		if !slices.Contains(names, must) {
			t.Errorf("%s is not read", must)
		}
	}
	if names = slices.Compact(slices.Sorted(slices.Values(names))); len(names) != len(SouthboundTables()) {
		t.Errorf("a table is named twice in %v", names)
	}
	for _, tables := range [][]ovsdb.Table{SouthboundTables(), SwitchTables()} {
		if _, err := ovsdb.New(ovsdb.Config{Database: "x", Remotes: []string{"unix:/x"}, Tables: tables}); err != nil {
			t.Error(err)
		}
	}
}
