package topology

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/offloadd/offloadd/integration/parity/content"
)

func script(parts ...string) string { return strings.Join(parts, "\n") }

// hv makes another chassis, with the features of ovn-controller 23.03.
func hv(name, ip string) string {
	return fmt.Sprintf(`
		chassis-add %[1]s geneve %[2]s
		set chassis %[1]s other_config:port-up-notif=true other_config:ct-no-masked-label=true other_config:mac-binding-timestamp=true other_config:ovn-ct-lb-related=true
	`, name, ip)
}

// lsp adds a switch port; n, up to 255, is the same for no other port of a content.
func lsp(sw, name string, subnet, n int, more ...string) string {
	return fmt.Sprintf("lsp-add %[1]s %[2]s\nlsp-set-addresses %[2]s %[3]q\n", sw, name, strings.Join(append([]string{addresses(subnet, n)}, more...), " "))
}

func addresses(subnet, n int) string {
	return fmt.Sprintf("0a:00:00:00:%02x:%02x 10.%d.0.%d fd%02x::%x", subnet, n, subnet, n, subnet, n)
}

// attach connects a switch to a router.
func attach(lr, sw string, subnet int) string {
	return fmt.Sprintf(`
		lrp-add %[1]s %[1]s-%[2]s 0a:00:00:00:%02[3]x:fe 10.%[3]d.0.254/24 fd%02[3]x::fe/64
		lsp-add %[2]s %[2]s-%[1]s
		lsp-set-type %[2]s-%[1]s router
		lsp-set-addresses %[2]s-%[1]s router
		lsp-set-options %[2]s-%[1]s router-port=%[1]s-%[2]s
	`, lr, sw, subnet)
}

// allowed are the stateful ACLs that make a cluster: what goes out is allowed with its answers, what comes in is chosen.
const allowed = `
	pg-add web p1 p2 r1
	pg-add db p3 r2
	create address_set name=friends addresses="10.1.0.1 10.1.0.2 10.2.0.0/25"
	acl-add web from-lport 1001 "inport == @web && ip" allow-related
	acl-add web to-lport 1002 "outport == @web && ip4 && tcp.dst == {80, 443}" allow-related
	acl-add web to-lport 1001 "outport == @web && ip6 && icmp6" allow-related
	acl-add db from-lport 1001 "inport == @db && ip" allow-related
	acl-add db to-lport 1003 "outport == @db && ip4.src == \$friends && tcp.dst == 5432" allow-related
	acl-add db to-lport 1002 "outport == @db && ip4.src == \$web_ip4 && icmp4" allow-related
	--log --severity=info --name=denied acl-add db to-lport 900 "outport == @db && ip" drop
	acl-add web to-lport 900 "outport == @web && ip" drop
`

var three = []string{"p1", "p2", "p3"}

// base is two switches behind a router, with local and remote ports on both.
func base() (nb, south string) {
	return script("ls-add sw1", "ls-add sw2", "lr-add lr0", attach("lr0", "sw1", 1), attach("lr0", "sw2", 2),
			lsp("sw1", "p1", 1, 1), lsp("sw1", "p2", 1, 2), lsp("sw2", "p3", 2, 3), lsp("sw1", "r1", 1, 11), lsp("sw2", "r2", 2, 12)),
		script(hv("hv2", "172.31.0.102"), hv("hv3", "172.31.0.103"), "lsp-bind r1 hv2", "lsp-bind r2 hv3")
}

// own are the contents for tests of what specialises programs: each has established traffic worth forwarding.
func own() []content.Content {
	nb, south := base()
	with := func(name, about string, more ...string) content.Content {
		return content.Content{Name: "spec-" + name, About: about, Local: three, NB: script(append([]string{nb}, more...)...), SB: south}
	}
	outside := `
		ls-add public
		lsp-add public ln
		lsp-set-type ln localnet
		lsp-set-addresses ln unknown
		lsp-set-options ln network_name=phys
		lrp-add lr0 lr0-public 0a:00:00:00:09:fe 172.16.0.1/24
		lsp-add public public-lr0
		lsp-set-type public-lr0 router
		lsp-set-addresses public-lr0 router
		lsp-set-options public-lr0 router-port=lr0-public
		lr-route-add lr0 0.0.0.0/0 172.16.0.254
		static-mac-binding-add lr0-public 172.16.0.254 0a:00:00:00:09:01
	`
	const mapped = "--may-exist add-br br-ex\nset open . external_ids:ovn-bridge-mappings=phys:br-ex"
	physical := func(c content.Content) content.Content {
		c.VS = mapped
		return c
	}
	return []content.Content{
		with("plain", "two switches behind a router, local and remote ports, no ACLs"),
		with("cluster", "stateful ACLs of port groups with address sets", allowed),
		with("secured", "port security beside stateful ACLs", allowed,
			fmt.Sprintf("lsp-set-port-security p1 %q\nlsp-set-port-security p3 %q", addresses(1, 1), addresses(2, 3))),
		with("unknown", "ports with unknown addresses, and learned ones", "lsp-set-addresses p2 "+fmt.Sprintf("%q", addresses(1, 2))+" unknown",
			"lsp-set-addresses r1 unknown"),
		with("balanced", "load balancers of the switches and the router", allowed, `
			lb-add lb0 10.9.0.1:80 10.1.0.1:8080,10.1.0.2:8080,10.1.0.11:8080 tcp
			lb-add lb1 [fd09::1]:53 [fd01::1]:53,[fd02::3]:53 udp
			lb-add lb2 10.9.0.2 10.2.0.3,10.2.0.12
			ls-lb-add sw1 lb0
			ls-lb-add sw2 lb0
			ls-lb-add sw1 lb1
			lr-lb-add lr0 lb2
		`),
		with("shaped", "QoS: marks and rates", allowed, `
			qos-add sw1 from-lport 100 "inport == \"p1\" && ip4" dscp=46
			qos-add sw1 to-lport 100 "outport == \"p2\" && ip4" rate=1000 burst=2000
		`),
		with("logged", "ACLs that allow and log, with a label", `
			--log --severity=info --name=a acl-add sw1 from-lport 1001 "inport == \"p1\" && ip4" allow-related
			--label=77 acl-add sw1 from-lport 1000 "inport == \"p2\" && ip" allow-related
			acl-add sw1 to-lport 1000 ip allow-related
		`),
		with("routed", "static routes, policies and neighbours on the router", allowed, `
			lr-route-add lr0 192.168.1.0/24 10.1.0.11
			lr-route-add lr0 192.168.2.0/24 10.2.0.99
			lr-policy-add lr0 100 "ip4.src == 10.1.0.1 && ip4.dst == 192.168.2.0/24" reroute 10.2.0.12
			lr-policy-add lr0 90 "ip4.src == 10.1.0.2 && ip4.dst == 192.168.2.0/24" drop
			lr-policy-add lr0 80 "ip4.src == 10.2.0.3" allow pkt_mark=7
			static-mac-binding-add lr0-sw2 10.2.0.99 0a:00:00:00:02:99
		`),
		{
			Name: "spec-older", About: "a chassis without feature flags: ovn-northd writes logical flows that use ct_label", Local: three,
			NB: script(nb, allowed), SB: script("chassis-add hv2 geneve 172.31.0.102", "lsp-bind r1 hv2", "lsp-bind r2 hv2"),
		},
		physical(with("nat", "a gateway port here: SNAT and floating addresses, a physical network", allowed, outside, `
			lrp-set-gateway-chassis lr0-public n1 20
			lr-nat-add lr0 snat 172.16.0.1 10.1.0.0/24
			lr-nat-add lr0 dnat_and_snat 172.16.0.2 10.1.0.2 p2 0a:00:00:00:09:02
			lr-nat-add lr0 dnat_and_snat 172.16.0.3 10.2.0.3
		`)),
		physical(with("nat-remote", "a gateway port on another chassis", allowed, outside, `
			lrp-set-gateway-chassis lr0-public hv2 20
			lr-nat-add lr0 snat 172.16.0.1 10.1.0.0/24
			lr-nat-add lr0 dnat_and_snat 172.16.0.2 10.1.0.2 p2 0a:00:00:00:09:02
		`)),
		physical(with("physical", "a switch with a physical network", allowed, `
			lsp-add sw1 ln
			lsp-set-type ln localnet
			lsp-set-addresses ln unknown
			lsp-set-options ln network_name=phys
		`)),
	}
}

// randomCluster draws a deployment with stateful policies: switches behind routers, ports here and on other chassis, port groups,
// address sets, and now and then load balancers, port security, unknown addresses, logging, QoS, address translation and more.
func randomCluster(seed uint64) content.Content {
	r := rand.New(rand.NewPCG(seed, 3))
	maybe := func(n int) bool { return r.IntN(n) == 0 }
	c := content.Content{Name: fmt.Sprintf("random-cluster-%d", seed), About: "a cluster drawn at random"}
	var nb, south strings.Builder
	add := func(format string, args ...any) { fmt.Fprintf(&nb, format+"\n", args...) }

	others := r.IntN(4)
	for i := range others {
		south.WriteString(hv(fmt.Sprintf("hv%d", i+2), fmt.Sprintf("172.31.0.%d", 102+i)))
	}
	switches := 1 + r.IntN(3)
	routed := !maybe(5)
	if routed {
		add("lr-add lr0")
	}
	var all, v4 []string
	for s := 1; s <= switches; s++ {
		sw := fmt.Sprintf("sw%d", s)
		add("ls-add %s", sw)
		if routed {
			nb.WriteString(attach("lr0", sw, s))
		}
		for i := 1; i <= 1+r.IntN(4); i++ {
			p := fmt.Sprintf("s%dp%d", s, i)
			switch {
			case maybe(8):
				nb.WriteString(lsp(sw, p, s, i, "unknown"))
				add("lsp-set-addresses %s %q unknown", p, addresses(s, i))
			default:
				nb.WriteString(lsp(sw, p, s, i))
			}
			if maybe(4) {
				add("lsp-set-port-security %s %q", p, addresses(s, i))
			}
			all, v4 = append(all, p), append(v4, fmt.Sprintf("10.%d.0.%d", s, i))
			switch {
			case others == 0 || r.IntN(3) > 0:
				c.Local = append(c.Local, p)
			default:
				fmt.Fprintf(&south, "lsp-bind %s hv%d\n", p, 2+r.IntN(others))
			}
		}
	}
	if len(c.Local) == 0 {
		c.Local = all[:1]
		south.Reset()
		for i := range others {
			south.WriteString(hv(fmt.Sprintf("hv%d", i+2), fmt.Sprintf("172.31.0.%d", 102+i)))
		}
	}
	some := func(list []string, sep string) string {
		var out []string
		for _, x := range list {
			if maybe(2) {
				out = append(out, x)
			}
		}
		if len(out) == 0 {
			out = list[:1]
		}
		return strings.Join(out, sep)
	}
	if !maybe(4) {
		add("create address_set name=as1 addresses=\"%s 192.0.2.0/24\"", some(v4, " "))
		for g := range 1 + r.IntN(2) {
			pg := fmt.Sprintf("pg%d", g)
			add("pg-add %s %s", pg, some(all, " "))
			verdict := func() string { return pick(r, "allow-related", "allow-related", "allow-related", "allow", "drop") }
			if maybe(2) {
				add(`acl-add %[1]s from-lport 1001 "inport == @%[1]s && ip" allow-related`, pg)
			}
			for i := range 1 + r.IntN(4) {
				match := pick(r, "ip4.src == \\$as1", "tcp.dst == {80, 443}", "ip4 && udp.dst == 53", "icmp4 || icmp6",
					"ip4.src == \\$as1 && tcp.dst == {80, 5432}", "ip6", fmt.Sprintf("ip4.src == \\$%s_ip4", pg), "ip4.src == 10.0.0.0/8 && tcp", "1024 <= tcp.dst < 2000")
				log := pick(r, "", "", "", "--log --severity=info --name=x ")
				add(`%sacl-add %s to-lport %d "outport == @%s && %s" %s`, log, pg, 1000+i, pg, match, verdict())
			}
			if maybe(2) {
				add(`acl-add %[1]s to-lport 900 "outport == @%[1]s && ip" drop`, pg)
			}
		}
	}
	if maybe(3) {
		backends := func(port string) string {
			var out []string
			for range 1 + r.IntN(3) {
				out = append(out, v4[r.IntN(len(v4))]+port)
			}
			return strings.Join(out, ",")
		}
		add("lb-add lb0 10.9.0.1:80 %s tcp", backends(":8080"))
		add("lb-add lb1 10.9.0.2 %s", backends(""))
		add("ls-lb-add sw1 lb0")
		if routed && maybe(2) {
			add("lr-lb-add lr0 lb1")
		}
	}
	if maybe(4) {
		add(`qos-add sw1 from-lport 100 "%s" %s`, pick(r, "ip4", "ip6", "tcp"), pick(r, "dscp=10", "rate=1000 burst=100"))
	}
	if routed {
		for n := range r.IntN(3) {
			next := fmt.Sprintf("10.%d.0.%d", 1+r.IntN(switches), 1+r.IntN(6))
			add("lr-route-add lr0 192.168.%d.0/24 %s", n, next)
		}
		if maybe(4) {
			add(`lr-policy-add lr0 100 "ip4.src == %s" %s`, v4[r.IntN(len(v4))], pick(r, "drop", "allow", "allow pkt_mark=5"))
		}
		if maybe(4) {
			add("set logical_router lr0 options:mcast_relay=true")
		}
		if maybe(4) {
			nb.WriteString(`
				ls-add public
				lsp-add public ln
				lsp-set-type ln localnet
				lsp-set-addresses ln unknown
				lsp-set-options ln network_name=phys
				lrp-add lr0 lr0-public 0a:00:00:00:09:fe 172.16.0.1/24
				lsp-add public public-lr0
				lsp-set-type public-lr0 router
				lsp-set-addresses public-lr0 router
				lsp-set-options public-lr0 router-port=lr0-public
				lr-route-add lr0 0.0.0.0/0 172.16.0.254
				static-mac-binding-add lr0-public 172.16.0.254 0a:00:00:00:09:01
				lr-nat-add lr0 snat 172.16.0.1 10.1.0.0/24
			`)
			gateway := chassisName
			if others > 0 && maybe(2) {
				gateway = "hv2"
			}
			add("lrp-set-gateway-chassis lr0-public %s 20", gateway)
			c.VS = "--may-exist add-br br-ex\nset open . external_ids:ovn-bridge-mappings=phys:br-ex"
		}
	}
	if maybe(5) {
		add("lsp-add sw1 c1 %s 11\nlsp-set-addresses c1 \"0a:00:00:00:01:aa 10.1.0.170\"", c.Local[0])
	}
	c.NB, c.SB = nb.String(), south.String()
	return c
}

func pick(r *rand.Rand, choices ...string) string { return choices[r.IntN(len(choices))] }
