package logical

import (
	"fmt"
	"testing"
)

// Texts as ovn-northd writes them for switches, routers, ACLs and load balancers.
var northdTexts = []string{
	`inport == "lsp-%d" && eth.src == 0a:00:00:00:00:01`,
	`outport == "lsp-%d"`,
	`eth.dst == 0a:00:00:00:%02x:01`,
	`ip4.dst == 10.0.%d.0/24`,
	`ct.new && ip4.dst == 10.96.0.%d && tcp.dst == 80`,
	`ip4 && ip4.dst == 10.0.%d.1 && !ip.later_frag && tcp`,
	`inport == "lsp-%d" && (ip4.mcast || ip6.mcast)`,
	`ct.est && !ct.rel && !ct.new && !ct.inv && ct.rpl && ct_mark.blocked == 0 && reg0 == %d`,
	`reg0[7] == 1 && (inport == @pg && ip4.src == $web && tcp.dst == %d)`,
	`(inport == "lsp-%d" && arp.op == 1 && arp.tpa == {10.0.0.1, 10.0.0.2})`,
	`nd_ns && ip6.dst == {fd00::%d, ff02::1:ff00:1} && nd.target == fd00::1`,
	`ip.ttl == {0, 1} && !ip.later_frag && reg1 == %d`,
	`1 || reg0 == %d`,
}

func BenchmarkParseAndMatch(b *testing.B) {
	for i, f := range northdTexts {
		b.Run(fmt.Sprint(i), func(b *testing.B) {
			text := fmt.Sprintf(f, 7)
			b.ReportAllocs()
			for b.Loop() {
				e, err := ParseMatch(text, Symbols(), fixture{})
				if err != nil {
					b.Fatal(err)
				}
				m, err := e.Matches(fixture{}.resident)
				if err != nil {
					b.Fatal(err)
				}
				m.ForDatapath(func(string) (uint32, bool) { return 1, true }, func(FlowMatch) {})
			}
		})
	}
}

func BenchmarkAddressSets(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		e, err := ParseMatch("ip4.src == $big && ip4.dst == $big && inport == @pg", Symbols(), bigSet{})
		if err != nil {
			b.Fatal(err)
		}
		m, err := e.Matches(nil)
		if err != nil {
			b.Fatal(err)
		}
		m.ForDatapath(fixture{}.port, func(FlowMatch) {})
	}
}
