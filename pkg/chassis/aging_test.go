package chassis

import (
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

func agingID(n int) sb.UUID { return sb.UUID{0: byte(n)} }

func agingUUID(n int) string { return agingID(n).String() }

// agingStore has the routers 1 with an age and 2 without, the switches 3 with an age and 4 without, and router 5, which is not local; on
// each a neighbour, 10 more, and an address, 20 more.
func agingStore(t *testing.T) (*sb.Store, *Local) {
	t.Helper()
	s := sb.NewStore()
	var updates []sb.Update
	for n, ids := range map[int]map[string]string{
		1: {"mac_binding_age_threshold": "300"}, 2: {}, 3: {"logical-switch": "x", "fdb_age_threshold": "16"}, 4: {"logical-switch": "x"},
		5: {"mac_binding_age_threshold": "300", "fdb_age_threshold": "300"},
	} {
		updates = append(updates,
			sb.Update{Table: sbdb.DatapathBindingTable, UUID: agingUUID(n), New: &sbdb.DatapathBinding{UUID: agingUUID(n), TunnelKey: n, ExternalIDs: ids}},
			sb.Update{Table: sbdb.MACBindingTable, UUID: agingUUID(n + 10), New: &sbdb.MACBinding{UUID: agingUUID(n + 10), Datapath: agingUUID(n), LogicalPort: "p"}},
			sb.Update{Table: sbdb.FDBTable, UUID: agingUUID(n + 20), New: &sbdb.FDB{UUID: agingUUID(n + 20), DpKey: n, PortKey: 1}})
	}
	if d := s.Apply(updates); len(d.Refused) > 0 {
		t.Fatal(d.Refused)
	}
	local := &Local{Datapaths: map[sb.UUID]*LocalDatapath{}}
	for n := 1; n <= 4; n++ {
		local.Datapaths[agingID(n)] = &LocalDatapath{UUID: agingID(n)}
	}
	return s, local
}

// Rows age where northd says so, on local datapaths, if the schema has a timestamp.
func TestAgingRows(t *testing.T) {
	s, local := agingStore(t)
	binding := AgingRow{sbdb.MACBindingTable, agingID(11), 300_000}
	fdb := AgingRow{sbdb.FDBTable, agingID(23), 16_000}
	for _, c := range []struct {
		name  string
		local *Local
		has   string // tables with a timestamp
		want  []AgingRow
	}{
		{"a new schema", local, "MAC_Binding FDB", []AgingRow{fdb, binding}},
		{"that of 23.03", local, "MAC_Binding", []AgingRow{binding}},
		{"an old one", local, "", nil},
		{"nothing is local", &Local{}, "MAC_Binding FDB", nil},
		{"nothing is known", nil, "MAC_Binding FDB", nil},
	} {
		got := AgingRows(s, c.local, func(table, column string) bool {
			return column == "timestamp" && slices.Contains(strings.Fields(c.has), table)
		})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
}

// Two readings and two cooldowns are less than the age, which northd waits for, from 4 s on.
func TestAgingPeriod(t *testing.T) {
	if p := AgingPeriod(nil); p != 0 {
		t.Errorf("AgingPeriod of no rows = %d, want 0", p)
	}
	if p := AgingPeriod([]AgingRow{{Age: 600_000}, {Age: 32_000}, {Age: 86_400_000}}); p != 6000 {
		t.Errorf("AgingPeriod = %d, want that of the smallest age, 6000", p)
	}
	for age := int64(1000); age < 10*86_400_000; age += 999 {
		r := AgingRow{Age: age}
		p := AgingPeriod([]AgingRow{r})
		if p < minAgingPeriod || p > maxAgingPeriod || age >= 4000 && 2*(p+r.cooldown()) >= age {
			t.Fatalf("age %d: a reading each %d, cooldown %d", age, p, r.cooldown())
		}
	}
}

func TestRefreshes(t *testing.T) {
	const now = 1_000_000
	rows := []AgingRow{{sbdb.FDBTable, agingID(23), 16_000}, {sbdb.MACBindingTable, agingID(11), 160_000}}
	flow, filter, fdb := UseCounter{agingID(11), "flow"}, UseCounter{agingID(11), "filter"}, UseCounter{agingID(23), "flow"}
	binding := Refresh{sbdb.MACBindingTable, agingID(11), now, now - 30_000}
	type counts = map[UseCounter]uint64
	for i, c := range []struct {
		before, after counts
		want          []Refresh
	}{
		{nil, counts{flow: 5, filter: 6, fdb: 7}, nil},                                             // the first reading
		{counts{}, counts{}, nil},                                                                  // nothing counts
		{counts{flow: 5, filter: 6}, counts{flow: 5, filter: 6}, nil},                              // nothing counted
		{counts{flow: 5, filter: 6}, counts{flow: 6, filter: 6}, []Refresh{binding}},               // Open vSwitch has seen it
		{counts{flow: 5, filter: 6}, counts{flow: 5, filter: 7}, []Refresh{binding}},               // only filters have
		{counts{flow: 5}, counts{flow: 5, filter: 1}, []Refresh{binding}},                          // a filter is new and has counted
		{counts{flow: 5}, counts{flow: 5, filter: 0}, nil},                                         // it has not
		{counts{flow: 5, filter: 6}, counts{flow: 5, filter: 2}, []Refresh{binding}},               // it was replaced, and has counted
		{counts{flow: 5, filter: 6}, counts{flow: 5, filter: 0}, nil},                              // it was replaced, and has not
		{counts{flow: 5, filter: 6}, counts{flow: 5}, nil},                                         // it is gone
		{counts{}, counts{{agingID(99), "flow"}: 9}, nil},                                          // a row that does not age any more
		{counts{fdb: 1}, counts{fdb: 2}, []Refresh{{sbdb.FDBTable, agingID(23), now, now - 3000}}}, // an address
		{counts{}, counts{fdb: 2, filter: 1}, []Refresh{{sbdb.FDBTable, agingID(23), now, now - 3000}, binding}},
	} {
		if diff := cmp.Diff(c.want, Refreshes(rows, c.before, c.after, now)); diff != "" {
			t.Errorf("%d: from %v to %v (-want +got):\n%s", i, c.before, c.after, diff)
		}
	}
}
