package content

import (
	"fmt"
	"strings"
)

// groups are what needs OpenFlow groups and meters: several next hops, load balancers and rate limits.
func groups() []Content {
	routed := script(`
		ls-add sw0
		lsp-add sw0 p1
		lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 fd00::1"
		ls-add sw1
		lsp-add sw1 p2
		lsp-set-addresses p2 "0a:00:00:00:01:02 10.1.0.2 fd01::2"
		lr-add lr0
	`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"), attach("lr0", "sw1", "0a:00:00:00:01:fe", "10.1.0.254/24", "fd01::fe/64"))
	return []Content{
		{Name: "ecmp-many", About: "routes over three next hops, some of them the same, IPv4 and IPv6", Local: bothPorts, NB: script(routed, `
			--ecmp lr-route-add lr0 192.168.0.0/16 10.0.0.100
			--ecmp lr-route-add lr0 192.168.0.0/16 10.0.0.101
			--ecmp lr-route-add lr0 192.168.0.0/16 10.1.0.102
			--ecmp lr-route-add lr0 192.169.0.0/16 10.0.0.100
			--ecmp lr-route-add lr0 192.169.0.0/16 10.0.0.101
			--ecmp --policy=src-ip lr-route-add lr0 10.0.0.0/25 10.1.0.100
			--ecmp --policy=src-ip lr-route-add lr0 10.0.0.0/25 10.1.0.101
			--ecmp lr-route-add lr0 fd99::/64 fd00::100
			--ecmp lr-route-add lr0 fd99::/64 fd01::101
		`)},
		{Name: "policy-ecmp", About: "a policy with several next hops", Local: bothPorts, NB: script(routed, `
			lr-policy-add lr0 100 "ip4.src == 10.0.0.1" reroute 10.1.0.100,10.1.0.101,10.1.0.102
			lr-policy-add lr0 99 "ip6.src == fd00::1" reroute fd01::100,fd01::101
		`)},
		{Name: "qos-shared", About: "the same rate limit on two switches, with and without a burst", Local: bothPorts, NB: script(routed, `
			qos-add sw0 from-lport 100 ip4 rate=5000 burst=500
			qos-add sw1 from-lport 100 ip4 rate=5000 burst=500
			qos-add sw0 to-lport 100 ip4 rate=5000
			qos-add sw1 to-lport 200 "ip4 && ip4.src == {10.0.0.1, 10.0.0.2} && tcp.dst == {80, 81, 82}" rate=4294967295 burst=4294967295 dscp=10
		`)},
		{Name: "load-balancer-router", About: "load balancers of a distributed router", Local: bothPorts, NB: script(routed, `
			lb-add lb0 10.9.0.1:80 10.0.0.1:8080,10.1.0.2:8080 tcp
			lb-add lb1 [fd09::1]:53 [fd00::1]:53,[fd01::2]:54 udp
			lb-add lb2 10.9.0.2 10.0.0.1,10.1.0.2
			lb-add lb3 10.9.0.3:8080 10.0.0.1:80 tcp
			lr-lb-add lr0 lb0
			lr-lb-add lr0 lb1
			lr-lb-add lr0 lb2
			lr-lb-add lr0 lb3
		`)},
		{Name: "load-balancer-hash", About: "load balancers that choose a backend by some fields only", Local: bothPorts, NB: script(routed, `
			lb-add lb0 10.9.0.1:80 10.0.0.1:8080,10.1.0.2:8080 tcp
			set load_balancer lb0 selection_fields=ip_src,ip_dst
			lb-add lb1 10.9.0.2:53 10.0.0.1:53,10.1.0.2:53 udp
			set load_balancer lb1 selection_fields=ip_src,tp_src,eth_src
			lb-add lb2 [fd09::1]:53 [fd00::1]:53,[fd01::2]:53 udp
			set load_balancer lb2 selection_fields=ip_src,tp_src,tp_dst
			lr-lb-add lr0 lb0
			lr-lb-add lr0 lb1
			lr-lb-add lr0 lb2
		`)},
		{Name: "load-balancer-big", About: "a load balancer with many backends", Local: bothPorts, NB: script(routed, "lb-add lb0 10.9.0.1:80 "+backends(600)+" tcp", "lr-lb-add lr0 lb0")},
	}
}

// backends returns n backends of a load balancer.
func backends(n int) string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("10.0.%d.%d:8080", i>>8, i&0xff)
	}
	return strings.Join(list, ",")
}
