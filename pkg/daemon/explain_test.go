package daemon

import (
	"testing"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
	"github.com/offloadd/offloadd/pkg/reason"
	"github.com/offloadd/offloadd/pkg/sb"
)

// An IP packet whose TTL nobody mentions has one with which it gets somewhere, in the filters and in the trace.
func TestDefaultTTL(t *testing.T) {
	store := sb.NewStore()
	if d := store.Apply([]sb.Update{
		{Table: sbdb.DatapathBindingTable, UUID: rowUUID(1), New: &sbdb.DatapathBinding{UUID: rowUUID(1), TunnelKey: 1, ExternalIDs: map[string]string{"name": "sw0"}}},
		{Table: sbdb.PortBindingTable, UUID: rowUUID(2), New: &sbdb.PortBinding{UUID: rowUUID(2), Datapath: rowUUID(1), LogicalPort: "p1", TunnelKey: 1}},
	}); len(d.Refused) > 0 {
		t.Fatalf("rows refused: %+v", d.Refused)
	}
	for _, c := range []struct {
		microflow, added string
		ttl              uint64
	}{
		{`inport == "p1" && ip4`, " && ip.ttl == 64", 64},
		{`inport == "p1" && ip6 && tcp.dst == 80`, " && ip.ttl == 64", 64},
		{`inport == "p1" && ip4 && ip.ttl == 1`, "", 1},
		{`inport == "p1" && arp`, "", 0},
		{`inport == "p1"`, "", 0},
	} {
		text, flow, err := withTTL(store, c.microflow)
		pkt := flow.Packet()
		if err != nil || text != c.microflow+c.added || pkt.Value(ir.IPTTL) != ir.U64(c.ttl) {
			t.Errorf("withTTL(%s) = %s, TTL %v, %v, want TTL %d", c.microflow, text, pkt.Value(ir.IPTTL), err, c.ttl)
		}
	}
	if _, _, err := withTTL(store, `inport == "p2" && ip4`); reason.Of(err) != reason.LPortNotFound {
		t.Errorf("of an unknown port: %v, want %s", err, reason.LPortNotFound)
	}
	if _, _, err := withTTL(store, `inport == "p1" && ip`); reason.Of(err) != reason.InvalidField {
		t.Errorf("of two packets: %v, want %s", err, reason.InvalidField)
	}
}
