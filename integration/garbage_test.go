package integration

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/lab"
)

// Rows that no northd would write harm nobody but themselves: what works goes on working, ports are still set up, and
// when the rows are gone nothing is left of them.
func TestGarbageRows(t *testing.T) {
	l := pair(t, lab.Options{})
	n1 := l.Node("n1")
	p1, p2 := l.Pod("p1"), l.Pod("p2")
	before, err := n1.Flows(t.Context(), "br-int")
	l.Check(err)

	l.Check(l.Pause(t.Context()))
	datapath := strings.TrimSpace(l.SB("--bare --columns=_uuid find datapath_binding external_ids:name=sw0"))
	chassis := strings.TrimSpace(l.SB("--bare --columns=_uuid find chassis name=n1"))
	for _, g := range []struct{ name, operations string }{
		{"matches", flows(datapath,
			"ip4.src ==", "((((", "nosuchfield == 1", "ip4.src == 1.2.3.4.5", "tcp.dst == {1, 2", "ip4 && $nosuchset", "inport == @nosuchgroup",
			"ip4.src == fd10::1", "tcp.dst == 65536", "eth.src == 00:00", strings.Repeat("(", 5000)+"ip4", "ip4 && \xc3\xbc", "")},
		{"actions", actions(datapath,
			"frobnicate;", "next(table=999);", "next", "output", "ip.ttl--;;", "reg99 = 1;", "ct_commit { ct_mark = 0x1ffffffff; }; next;",
			"{{{{", "outport = ;", "ip4.src = fd10::1;", "nosuch { next; };", "")},
		{"bindings", `[
			{"op":"insert","table":"Port_Binding","row":{"logical_port":"odd1","datapath":["uuid","` + datapath + `"],"tunnel_key":101,"type":"nosuchtype","mac":["set",["garbage","zz:zz 1.2"]]}},
			{"op":"insert","table":"Port_Binding","row":{"logical_port":"odd2","datapath":["uuid","` + datapath + `"],"tunnel_key":102,"type":"patch","options":["map",[["peer","nosuchport"]]]}},
			{"op":"insert","table":"Port_Binding","row":{"logical_port":"odd3","datapath":["uuid","` + datapath + `"],"tunnel_key":103,"parent_port":"nosuchport","tag":4000}},
			{"op":"insert","table":"Port_Binding","row":{"logical_port":"odd4 '\";\n","datapath":["uuid","` + datapath + `"],"tunnel_key":104,"chassis":["uuid","` + chassis + `"]}},
			{"op":"insert","table":"Datapath_Binding","uuid-name":"dp","row":{"tunnel_key":16777215}},
			{"op":"insert","table":"Port_Binding","row":{"logical_port":"odd5","datapath":["named-uuid","dp"],"tunnel_key":32767,"type":"localnet","options":["map",[["network_name","nosuchnet"]]]}},
			{"op":"insert","table":"Multicast_Group","row":{"name":"empty","datapath":["named-uuid","dp"],"tunnel_key":65535}}]`},
		{"chassis", `[
			{"op":"insert","table":"Encap","uuid-name":"e1","row":{"type":"geneve","ip":"not-an-address","chassis_name":"odd"}},
			{"op":"insert","table":"Encap","uuid-name":"e2","row":{"type":"stt","ip":"172.31.0.77","chassis_name":"odd","options":["map",[["csum","maybe"]]]}},
			{"op":"insert","table":"Chassis","row":{"name":"odd","hostname":"h","encaps":["set",[["named-uuid","e1"],["named-uuid","e2"]]]}}]`},
		{"neighbours", `[
			{"op":"insert","table":"MAC_Binding","row":{"logical_port":"nosuchport","ip":"not-an-address","mac":"not-a-mac","datapath":["uuid","` + datapath + `"]}},
			{"op":"insert","table":"MAC_Binding","row":{"logical_port":"p1","ip":"10.0.0.99","mac":"","datapath":["uuid","` + datapath + `"]}},
			{"op":"insert","table":"FDB","row":{"mac":"zz:zz","dp_key":1,"port_key":1}},
			{"op":"insert","table":"FDB","row":{"mac":"00:00:00:00:00:01","dp_key":16777215,"port_key":32767}},
			{"op":"insert","table":"Address_Set","row":{"name":"odd","addresses":["set",["not-an-address","10.0.0.0/33","fd10::/129"]]}},
			{"op":"insert","table":"Port_Group","row":{"name":"odd","ports":["set",["nosuchport"]]}}]`},
	} {
		out, err := l.SBTransact(t.Context(), g.operations)
		l.Check(err)
		if strings.Contains(out, `"error"`) {
			t.Fatalf("%s: the server refuses: %s", g.name, out)
		}
		wantPing(t, p2, p1, time.Second)
	}
	p3 := l.AddPod("n1", member(3))
	l.WaitInstalled(p3)
	wantPing(t, p2, p3, 5*time.Second)
	wantPing(t, p3, p1, 5*time.Second)
	if !n1.AgentRuns() {
		t.Fatal("the agent has ended")
	}

	// northd removes what it does not know of, except chassis and what agents write.
	_, err = l.SBTransact(t.Context(), `[
		{"op":"delete","table":"Chassis","where":[["name","==","odd"]]},
		{"op":"delete","table":"MAC_Binding","where":[]},
		{"op":"delete","table":"FDB","where":[]}]`)
	l.Check(err)
	l.Check(l.Unpause(t.Context()))
	l.Check(p3.Remove(t.Context()))
	l.NB("lsp-set-enabled p9 disabled") // something for northd to do
	l.Sync()
	l.NB("lsp-set-enabled p9 enabled")
	l.Sync()
	wantPing(t, p2, p1, 5*time.Second)
	l.Eventually(10*time.Second, "the flows of before", func() bool {
		after, err := n1.Flows(t.Context(), "br-int")
		l.Check(err)
		return after == before
	})
}

// flows are operations that add a logical flow for each match.
func flows(datapath string, matches ...string) string {
	var ops []string
	for _, m := range matches {
		ops = append(ops, lflow(datapath, m, "next;"))
	}
	return "[" + strings.Join(ops, ",") + "]"
}

// actions are operations that add a logical flow for each list of actions.
func actions(datapath string, actions ...string) string {
	var ops []string
	for _, a := range actions {
		ops = append(ops, lflow(datapath, "ip4.dst == 192.0.2.1", a))
	}
	return "[" + strings.Join(ops, ",") + "]"
}

func lflow(datapath, match, actions string) string {
	row, err := json.Marshal(map[string]any{
		"logical_datapath": []string{"uuid", datapath}, "pipeline": "ingress", "table_id": 5, "priority": 100,
		"match": match, "actions": actions,
	})
	if err != nil {
		panic(err) // strings alone
	}
	return `{"op":"insert","table":"Logical_Flow","row":` + string(row) + `}`
}
