package daemon

import (
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/api"
	"github.com/offloadd/offloadd/pkg/apply"
	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

func rowUUID(n int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", n) }

// logicalAgent knows the datapaths sw0 and sw1, which are local, and far, which is not. Its logical flows are numbered: of sw0 1 to
// 4, of far 5, of a group of sw1 and far 6.
func logicalAgent(t *testing.T) *Agent {
	t.Helper()
	a := &Agent{store: sb.NewStore(), engine: compile.NewEngine()}
	var updates []sb.Update
	add := func(table string, n int, row any) {
		updates = append(updates, sb.Update{Table: table, UUID: rowUUID(n), New: row})
	}
	datapath := func(n int, name string) {
		add(sbdb.DatapathBindingTable, n, &sbdb.DatapathBinding{
			UUID: rowUUID(n), TunnelKey: n, ExternalIDs: map[string]string{"name": name, "logical-switch": rowUUID(n)},
		})
	}
	datapath(0xa0, "sw0")
	datapath(0xa1, "sw1")
	datapath(0xaf, "far")
	add(sbdb.LogicalDPGroupTable, 0xc0, &sbdb.LogicalDPGroup{UUID: rowUUID(0xc0), Datapaths: []string{rowUUID(0xa1), rowUUID(0xaf)}})
	flow := func(n, dp int, pipeline string, table, priority int, match, actions string, tags map[string]string) {
		id := rowUUID(dp)
		r := &sbdb.LogicalFlow{
			UUID: rowUUID(n), Pipeline: pipeline, TableID: table, Priority: priority, Match: match, Actions: actions, Tags: tags,
		}
		if dp == 0xc0 {
			r.LogicalDpGroup = &id
		} else {
			r.LogicalDatapath = &id
		}
		add(sbdb.LogicalFlowTable, n, r)
	}
	flow(1, 0xa0, "ingress", 0, 50, `inport == "p1"`, "next;", nil)
	flow(2, 0xa0, "ingress", 0, 100, `inport == "p10"`, "next;", nil)
	flow(3, 0xa0, "egress", 3, 50, "1", `outport = "p1"; output;`, nil)
	flow(4, 0xa0, "ingress", 3, 50, "1", "next;", map[string]string{"in_out_port": "p1"})
	flow(5, 0xaf, "ingress", 0, 50, `inport == "p1"`, "next;", nil)
	flow(6, 0xc0, "ingress", 0, 0, "1", "drop;", nil)
	if d := a.store.Apply(updates); len(d.Refused) > 0 {
		t.Fatalf("rows refused: %+v", d.Refused)
	}
	a.plan.Local = &chassis.Local{Datapaths: map[sb.UUID]*chassis.LocalDatapath{}}
	for _, n := range []int{0xa0, 0xa1} {
		id, err := sb.ParseUUID(rowUUID(n))
		if err != nil {
			t.Fatal(err)
		}
		a.plan.Local.Datapaths[id] = &chassis.LocalDatapath{UUID: id, IsSwitch: true}
	}
	return a
}

func TestLogicalFlowFilter(t *testing.T) {
	a := logicalAgent(t)
	table := func(n uint8) *uint8 { return &n }
	for _, tt := range []struct {
		name   string
		filter api.LogicalFlowFilter
		want   []string // in order
	}{
		{"all", api.LogicalFlowFilter{}, []string{"sw0 2", "sw0 1", "sw0 4", "sw0 3", "sw1 6"}},
		{"datapath by name", api.LogicalFlowFilter{Datapath: "sw0"}, []string{"sw0 2", "sw0 1", "sw0 4", "sw0 3"}},
		{"datapath by UUID", api.LogicalFlowFilter{Datapath: rowUUID(0xa1)}, []string{"sw1 6"}},
		{"pipeline", api.LogicalFlowFilter{Pipeline: api.Egress}, []string{"sw0 3"}},
		{"table", api.LogicalFlowFilter{Table: table(3)}, []string{"sw0 4", "sw0 3"}},
		{"table 0", api.LogicalFlowFilter{Table: table(0)}, []string{"sw0 2", "sw0 1", "sw1 6"}},
		{"a port in match, actions or tags", api.LogicalFlowFilter{LogicalPort: "p1"}, []string{"sw0 1", "sw0 4", "sw0 3"}},
		{"the beginning of a UUID", api.LogicalFlowFilter{UUID: "00000003"}, []string{"sw0 3"}},
		{"all at once", api.LogicalFlowFilter{Datapath: "sw0", Pipeline: api.Ingress, Table: table(3), LogicalPort: "p1", UUID: "00"}, []string{"sw0 4"}},
		{"none", api.LogicalFlowFilter{UUID: "f"}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			found, err := a.logicalFlows(tt.filter)
			if err != nil {
				t.Fatal(err)
			}
			slices.SortFunc(found, compareCompiled)
			var got []string
			for _, c := range found {
				got = append(got, fmt.Sprintf("%s %d", c.dp.Name, c.flow.UUID.Cookie()))
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	for _, name := range []string{"far", "nowhere", rowUUID(0xaf)} {
		if _, err := a.logicalFlows(api.LogicalFlowFilter{Datapath: name}); reason.Of(err) != reason.DatapathNotFound {
			t.Errorf("datapath %q: %v, want %s", name, err, reason.DatapathNotFound)
		}
	}
}

func TestFlowFilter(t *testing.T) {
	row, err := sb.ParseUUID(rowUUID(0xabc))
	if err != nil {
		t.Fatal(err)
	}
	w := apply.Wanted{Key: apply.Key{Table: 8}, Flow: apply.Flow{Cookie: 0xabc}, Rows: [][16]byte{{}, row}}
	zero, eight := uint8(0), uint8(8)
	for _, tt := range []struct {
		filter api.FlowFilter
		want   bool
	}{
		{api.FlowFilter{}, true},
		{api.FlowFilter{Table: &eight}, true},
		{api.FlowFilter{Table: &zero}, false},
		{api.FlowFilter{Cookie: 0xabc}, true},
		{api.FlowFilter{Cookie: 1}, false},
		{api.FlowFilter{Row: "00000abc-"}, true},
		{api.FlowFilter{Row: "abc"}, false},
		{api.FlowFilter{Table: &eight, Cookie: 0xabc, Row: rowUUID(0xabc)}, true},
	} {
		if got := selects(tt.filter, w); got != tt.want {
			t.Errorf("selects(%+v) = %v, want %v", tt.filter, got, tt.want)
		}
	}
}
