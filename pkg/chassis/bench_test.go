package chassis

import (
	"fmt"
	"testing"
)

// BenchmarkStep is a step with nothing to do, in a deployment of the given number of ports that are all in view, of
// which 40 are here.
func BenchmarkStep(b *testing.B) {
	for _, ports := range []int{1000, 10000} {
		b.Run(fmt.Sprint(ports), func(b *testing.B) {
			m := newModel()
			d := newDriver(m)
			do := func(format string, args ...any) {
				if err := d.do(fmt.Sprintf(format, args...)); err != nil {
					b.Fatal(err)
				}
			}
			do("ovs ovn-monitor-all=true")
			uuids := map[int]string{}
			for i := range ports {
				if i%40 == 0 {
					do("switch sw%d", i/40)
					uuids[i/40], _ = m.datapath(fmt.Sprintf("sw%d", i/40))
				}
				m.addPort(fmt.Sprintf("p%d", i), uuids[i/40])
			}
			for i := range 40 {
				do("iface i%d iface-id=p%d", i, i*ports/40)
			}
			do("settle")
			in := d.inputs()
			b.ReportAllocs()
			for b.Loop() {
				in.Turn++
				in.AckedTurn = in.Turn - 1
				if plan := d.s.Step(in); len(plan.SBOps)+len(plan.OVSOps) > 0 {
					b.Fatal(plan.SBOps, plan.OVSOps)
				}
			}
		})
	}
}
