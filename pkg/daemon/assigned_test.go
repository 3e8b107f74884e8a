package daemon

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/sb"
)

// The flows are those of ovn-northd 23.03.1 for a switch with a subnet, in its words.
func TestAddressesAssigned(t *testing.T) {
	const dp = "00000000-0000-0000-0000-00000000000d"
	flows := [][2]string{
		{`eth.dst == 0a:00:00:00:00:01`, `outport = "d1"; output;`},
		{`eth.dst == 0a:00:00:00:00:02`, `outport = "d2"; output;`},
		{`eth.dst == 0a:00:00:00:00:03`, `outport = "off"; drop;`},
		{`arp.tpa == 10.0.0.2 && arp.op == 1 && inport == "d1"`, `next;`},
		{`nd_ns && ip6.dst == {fd00::2, ff02::1:ff00:2} && nd.target == fd00::2 && inport == "d1"`, `next;`},
		{`arp.tpa == 10.0.0.3 && arp.op == 1 && inport == "d2"`, `next;`},
		{`arp.tpa == 10.0.0.2 && arp.op == 1`, `eth.dst = eth.src; eth.src = 0a:00:00:00:00:01; output;`},
		{`arp.tpa == bad && arp.op == 1 && inport == "d1"`, `next;`},
		{`eth.dst == 0a:00:00:00:00:04`, `outport = "mac only"; output;`},
	}
	updates := []sb.Update{{Table: sbdb.DatapathBindingTable, UUID: dp, New: &sbdb.DatapathBinding{UUID: dp, TunnelKey: 1}}}
	for i, f := range flows {
		uuid := "00000000-0000-0000-0000-00000000010" + string(rune('0'+i))
		d := dp
		updates = append(updates, sb.Update{Table: sbdb.LogicalFlowTable, UUID: uuid, New: &sbdb.LogicalFlow{
			UUID: uuid, LogicalDatapath: &d, Pipeline: "ingress", Match: f[0], Actions: f[1],
		}})
	}
	store := sb.NewStore()
	if d := store.Apply(updates); len(d.Refused) > 0 {
		t.Fatal(d.Refused[0].Err)
	}
	id, err := sb.ParseUUID(dp)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		lport string
		mac   []string
		want  string
	}{
		{"d1", []string{"dynamic"}, "0a:00:00:00:00:01 10.0.0.2 fd00::2"},
		{"d2", []string{"0a:00:00:00:00:02 dynamic"}, "0a:00:00:00:00:02 10.0.0.3"},
		{"d1", []string{"0a:00:00:00:00:09 10.9.9.9", "dynamic"}, "0a:00:00:00:00:09 10.9.9.9"},
		{"d1", []string{"unknown"}, "unknown"},
		{"d1", nil, ""},
		{"off", []string{"dynamic"}, ""},
		{"mac only", []string{"dynamic"}, ""},
		{"nobody", []string{"dynamic"}, ""},
	} {
		if got := addresses(store, &sb.Port{Name: tt.lport, Datapath: id, MAC: tt.mac}); got != tt.want {
			t.Errorf("%s %q: %q, want %q", tt.lport, tt.mac, got, tt.want)
		}
	}
}
