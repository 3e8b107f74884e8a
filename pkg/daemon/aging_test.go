package daemon

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/chassis"
	"github.com/offloadd/offloadd/pkg/compile"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb/ovsdbtest"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
	"github.com/offloadd/offloadd/pkg/specialize"
)

// agingProgram are the chains of a port v1, whose packets are counted for two neighbours, rows 7 and 8, and go to v2.
func agingProgram() *specialize.Program {
	const ipv4 = 0x800
	var all ir.Match
	rules := specialize.NewRules()
	add := func(n byte, r ...ir.Rule) { rules.Replace(specialize.Owner{Row: sb.UUID{0: n}}, r) }
	use := func(n uint64) ir.Rule {
		return ir.Rule{Table: compile.TableMACCacheUse, Priority: 100, Match: all.Eq(ir.EthSrc, n).Eq(ir.EthType, ipv4).Eq(ir.IPSrc, 0xa000000+n)}
	}
	add(1, ir.Rule{Table: 0, Priority: 90, Match: all.Eq(ir.InPort, 1), Actions: []ir.Action{
		ir.Resubmit{Table: compile.TableMACCacheUse}, ir.Resubmit{Table: 9},
	}})
	add(2, ir.Rule{Table: 9, Priority: 80, Actions: []ir.Action{ir.Output{Port: 2}}})
	add(7, use(7))
	add(8, use(8))
	return rules.Specialize(specialize.Input{Ports: []specialize.Port{
		{OFPort: 1, Device: specialize.Device{Name: "v1", Ifindex: 11}, Enter: true},
		{OFPort: 2, Device: specialize.Device{Name: "v2", Ifindex: 12}},
	}})
}

// The filters of a neighbour's packets are found, and only those of rows that age are read.
func TestUseOfFilters(t *testing.T) {
	p := agingProgram()
	f := filtersOf(t, p, kernelWith(t, []int{11}, filtersOfProgram(p)))
	neighbour := func(n byte) chassis.AgingRow {
		return chassis.AgingRow{Table: sbdb.MACBindingTable, UUID: sb.UUID{0: n}, Age: 4000}
	}
	at := func(n byte) chassis.UseCounter {
		return chassis.UseCounter{Row: sb.UUID{0: n}, At: fmt.Sprintf(
			"filter chain 0 pref 100 handle 0x0 protocol ip flower indev v1 src_mac 00:00:00:00:00:%02x src_ip 10.0.0.%d", n, n)}
	}
	for _, c := range []struct {
		rows []chassis.AgingRow
		want map[chassis.UseCounter]uint64
	}{
		{nil, map[chassis.UseCounter]uint64{}},
		{[]chassis.AgingRow{neighbour(9)}, map[chassis.UseCounter]uint64{}},
		{[]chassis.AgingRow{neighbour(8)}, map[chassis.UseCounter]uint64{at(8): 0}},
		{[]chassis.AgingRow{neighbour(7), neighbour(8), neighbour(9)}, map[chassis.UseCounter]uint64{at(7): 0, at(8): 0}},
	} {
		reader := useReader{agent: f.agent}
		got, err := reader.read(t.Context(), "", c.rows)
		if diff := cmp.Diff(c.want, got); err != nil || diff != "" {
			t.Errorf("%v: %v (-want +got):\n%s", c.rows, err, diff)
		}
	}
	if usedBy(nil, nil) != nil || usedBy(smallProgram(t), nil) != nil {
		t.Error("filters without such rules use something")
	}
}

// later returns the Southbound's schema as 23.09 has it: FDB has a timestamp.
func later(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(ovsdbtest.Southbound)
	if err != nil {
		t.Fatal(err)
	}
	var schema map[string]any
	if err := json.Unmarshal(text, &schema); err != nil {
		t.Fatal(err)
	}
	delete(schema, "cksum")
	fdb := schema["tables"].(map[string]any)["FDB"].(map[string]any)["columns"].(map[string]any)
	if _, has := fdb["timestamp"]; !has {
		fdb["timestamp"] = map[string]any{"type": map[string]any{"key": "integer"}}
	}
	if text, err = json.Marshal(schema); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "sb.ovsschema")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// Rows whose neighbours send packets are refreshed, others are not; nor is one that somebody else has refreshed meanwhile, and none where
// northd tells no age.
func TestAging(t *testing.T) {
	n := newNodeWith(t, later(t))
	row := func(table string, set map[string]any) chassis.Op {
		return chassis.Op{Kind: chassis.Insert, Table: table, Set: set}
	}
	dp := chassis.Ref{UUID: n.sb.Select("Datapath_Binding", `[]`)[0]["_uuid"].([]any)[1].(string)}
	const used, usedTo, unused = "50:54:00:00:00:01", "50:54:00:00:00:02", "50:54:00:00:00:03"
	fresh := time.Now().Add(time.Hour).UnixMilli()
	n.sb.Transact(Operations([]chassis.Op{
		row("Logical_Flow", map[string]any{
			"logical_datapath": dp, "pipeline": "ingress", "table_id": int64(1), "priority": int64(0),
			"match": "1", "actions": "reg0[0] = lookup_fdb(inport, eth.src); mac_cache_use; next;",
		}),
		row("MAC_Binding", map[string]any{"logical_port": "p1", "ip": "10.0.0.1", "mac": used, "datapath": dp, "timestamp": int64(1)}),
		row("MAC_Binding", map[string]any{"logical_port": "p1", "ip": "10.0.0.2", "mac": usedTo, "datapath": dp, "timestamp": int64(1)}),
		row("MAC_Binding", map[string]any{"logical_port": "p1", "ip": "10.0.0.3", "mac": used, "datapath": dp, "timestamp": fresh}),
		row("FDB", map[string]any{"mac": used, "dp_key": int64(1), "port_key": int64(1), "timestamp": int64(1)}),
		row("FDB", map[string]any{"mac": unused, "dp_key": int64(1), "port_key": int64(1), "timestamp": int64(1)}),
	})...)
	n.sw.VSctl(t, "set", "open_vswitch", ".", "external_ids:system-id=hv1")
	n.start()
	n.works()
	send := func(ip byte) { // IPv4, from used to usedTo
		head := strings.ReplaceAll(usedTo+used, ":", "") + "0800"
		n.sw.AppCtl(t, "netdev-dummy/receive", "p1", head+"450000140000000040fd0000"+hex.EncodeToString([]byte{10, 0, 0, ip, 10, 0, 0, 2}))
	}
	timestamps := func() map[string]int64 {
		all := map[string]int64{}
		number := func(v any) int64 {
			n, err := v.(json.Number).Int64()
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
		for _, r := range n.sb.Select("MAC_Binding", `[]`) {
			all["binding "+r["ip"].(string)] = number(r["timestamp"])
		}
		for _, r := range n.sb.Select("FDB", `[]`) {
			all["fdb "+r["mac"].(string)] = number(r["timestamp"])
		}
		return all
	}
	before := map[string]int64{
		"binding 10.0.0.1": 1, "binding 10.0.0.2": 1, "binding 10.0.0.3": fresh, "fdb " + used: 1, "fdb " + unused: 1,
	}
	send(1)
	time.Sleep(1500 * time.Millisecond)
	if diff := cmp.Diff(before, timestamps()); diff != "" {
		t.Fatalf("without an age (-want +got):\n%s", diff)
	}

	began := time.Now().UnixMilli()
	n.sb.Transact(Operations([]chassis.Op{{Kind: chassis.Update, Table: "Datapath_Binding", UUID: dp.UUID, Set: map[string]any{
		"external_ids": map[string]string{"name": "sw0", "mac_binding_age_threshold": "4", "fdb_age_threshold": "4"},
	}}})...)
	var got map[string]int64
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		send(1)
		send(3)
		if got = timestamps(); got["binding 10.0.0.1"] > 1 && got["fdb "+used] > 1 {
			break
		}
	}
	for _, used := range []string{"binding 10.0.0.1", "fdb " + used} {
		if got[used] < began || got[used] > time.Now().UnixMilli() {
			t.Errorf("%s: timestamp %d, want one after %d", used, got[used], began)
		}
		got[used] = 1
	}
	if diff := cmp.Diff(before, got); diff != "" {
		t.Errorf("of the others (-want +got):\n%s", diff)
	}

	// What is not used any more is not refreshed any more.
	time.Sleep(2500 * time.Millisecond)
	last := timestamps()
	time.Sleep(2500 * time.Millisecond)
	if diff := cmp.Diff(last, timestamps()); diff != "" {
		t.Errorf("after the last packet (-want +got):\n%s", diff)
	}
}
