package ovsdb

import (
	"bytes"
	"fmt"
	"runtime"
	"testing"

	"github.com/offloadd/offloadd/pkg/ovsdb/sbdb"
)

// BenchmarkLoad decodes the reply to a monitor of logical flows and makes it
// the contents.
func BenchmarkLoad(b *testing.B) {
	const rows = 20000
	var text bytes.Buffer
	text.WriteString(`{"id":4,"result":[false,"00000000-0000-0000-0000-000000000000",{"Logical_Flow":{`)
	for i := range rows {
		if i > 0 {
			text.WriteByte(',')
		}
		fmt.Fprintf(&text, `"%s":{"initial":{"actions":"eth.dst = eth.src; eth.src = 0a:00:00:00:%02x:%02x; outport = inport; flags.loopback = 1; output;",`+
			`"external_ids":["map",[["source","northd.c:%d"],["stage-hint","%08x"],["stage-name","ls_in_arp_rsp"]]],`+
			`"logical_datapath":["uuid","%s"],"match":"arp.tpa == 10.0.%d.%d && arp.op == 1 && inport != \"port%d\"","pipeline":"ingress","priority":50,"table_id":%d}}`,
			testUUID(i), i%100, i/100, 5000+i%300, i, testUUID(1e6+i%100), i/100, i%100, i, i%30)
	}
	text.WriteString(`}}],"error":null}`)
	plan, err := newTablePlan(Table{Name: "Logical_Flow", Row: sbdb.LogicalFlow{}})
	if err != nil {
		b.Fatal(err)
	}
	r := &replica{database: "DB", plans: []*tablePlan{plan}, server: plan}
	b.SetBytes(int64(text.Len()))
	b.ReportAllocs()
	for b.Loop() {
		d := &decoder{interner: &interner{}, replies: r.replies(), monitors: r.monitors(), scanner: newScanner(bytes.NewReader(text.Bytes()))}
		m, err := d.message()
		if err != nil {
			b.Fatal(err)
		}
		c := make(contents)
		changes, err := c.replace(m.update)
		if err != nil || len(changes) != rows {
			b.Fatalf("%d changes, %v", len(changes), err)
		}
		runtime.KeepAlive(c)
	}
	b.ReportMetric(float64(rows)*float64(b.N)/b.Elapsed().Seconds(), "rows/s")
}
