package content

import (
	"fmt"
	"strings"
)

// Fixed returns the hand-written contents, the simple ones first.
func Fixed() []Content {
	var list []Content
	for _, group := range [][]Content{switches(), portSecurity(), remotes(), acls(), routers(), services(), groups()} {
		list = append(list, group...)
	}
	return list
}

// Two switch ports that most contents start from, both local.
const twoPorts = `
	ls-add sw0
	lsp-add sw0 p1
	lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 fd00::1"
	lsp-add sw0 p2
	lsp-set-addresses p2 "0a:00:00:00:00:02 10.0.0.2 fd00::2"
`

var bothPorts = []string{"p1", "p2"}

func switches() []Content {
	many, manyNames := ports("sw0", "m", 1, 24)
	return []Content{
		{Name: "nothing", About: "an empty Northbound database"},
		{Name: "switch-unused", About: "a switch without a port here", NB: twoPorts},
		{Name: "switch", About: "two local ports, IPv4 and IPv6", NB: twoPorts, Local: bothPorts},
		{Name: "mac-only", About: "ports without IP addresses", Local: bothPorts, NB: `
			ls-add sw0
			lsp-add sw0 p1
			lsp-set-addresses p1 0a:00:00:00:00:01
			lsp-add sw0 p2
			lsp-set-addresses p2 "0a:00:00:00:00:02 fe80::2"
		`},
		{Name: "no-addresses", About: "ports without any address", NB: "ls-add sw0\nlsp-add sw0 p1\nlsp-add sw0 p2", Local: bothPorts},
		{Name: "many-ports", About: "24 local ports on one switch", NB: script("ls-add sw0", many), Local: manyNames},
		{Name: "many-addresses", About: "a port with several MAC and IP addresses", Local: bothPorts, NB: script(twoPorts, `
			lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 10.0.0.3 fd00::1 fd00::3" "0a:00:00:00:00:11 10.0.0.4"
		`)},
		{Name: "unknown", About: "ports with unknown addresses, learned ones in FDB", Local: bothPorts, NB: script(twoPorts, `
			set logical_switch sw0 other_config:requested-tnl-key=10
			set logical_switch_port p1 options:requested-tnl-key=1
			set logical_switch_port p2 options:requested-tnl-key=2
			lsp-set-addresses p1 unknown
			lsp-set-addresses p2 "0a:00:00:00:00:02 10.0.0.2" unknown
		`), SB: `
			create fdb mac="\"0a:00:00:00:00:77\"" dp_key=10 port_key=1
			create fdb mac="\"0a:00:00:00:00:78\"" dp_key=10 port_key=2
			create fdb mac="\"0a:00:00:00:00:79\"" dp_key=10 port_key=99
		`},
		{Name: "ipv6-switch", About: "IPv6 only", Local: bothPorts, NB: `
			ls-add sw6
			lsp-add sw6 p1
			lsp-set-addresses p1 "0a:00:00:00:00:01 fd00::1 fd01::1"
			lsp-add sw6 p2
			lsp-set-addresses p2 "0a:00:00:00:00:02 fd00::2"
			lsp-set-port-security p2 "0a:00:00:00:00:02 fd00::2"
		`},
		{Name: "disabled", About: "a disabled port", NB: script(twoPorts, "lsp-set-enabled p2 disabled"), Local: bothPorts},
		{Name: "localport", About: "a localport beside a normal one", Local: []string{"p1", "p2", "meta"}, NB: script(twoPorts, `
			lsp-add sw0 meta
			lsp-set-type meta localport
			lsp-set-addresses meta "0a:00:00:00:00:fe 10.0.0.254"
		`)},
		{Name: "ipam", About: "dynamic addresses and a router port that has none of its own", Local: []string{"p1", "p2"}, NB: script(`
			ls-add sw0
			set logical_switch sw0 other_config:subnet=10.0.0.0/24 other_config:ipv6_prefix=fd00:: other_config:mac_only=false
			lsp-add sw0 p1
			lsp-set-addresses p1 "0a:00:00:00:00:01 dynamic"
			lsp-add sw0 p2
			lsp-set-addresses p2 "0a:00:00:00:00:02 dynamic"
			lr-add lr0
		`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"))},
		{Name: "odd-names", About: "names that need quoting everywhere", Local: []string{"p 1/x,y", `q"uote\back`, "père=ß", "$as1"}, NB: `
			ls-add "sw, zero; (drop)"
			lsp-add "sw, zero; (drop)" "p 1/x,y"
			lsp-set-addresses "p 1/x,y" "0a:00:00:00:00:01 10.0.0.1"
			lsp-add "sw, zero; (drop)" "q\"uote\\back"
			lsp-set-addresses "q\"uote\\back" "0a:00:00:00:00:02 10.0.0.2" unknown
			lsp-set-port-security "q\"uote\\back" "0a:00:00:00:00:02 10.0.0.2"
			lsp-add "sw, zero; (drop)" "père=ß"
			lsp-set-addresses "père=ß" "0a:00:00:00:00:03 10.0.0.3"
			lsp-add "sw, zero; (drop)" "\$as1"
			lsp-set-addresses "\$as1" "0a:00:00:00:00:04 10.0.0.4"
			acl-add "sw, zero; (drop)" from-lport 5 "inport == \"p 1/x,y\" && ip4" allow-related
		`},
		{
			Name: "two-interfaces", About: "an interface without a logical port, and a logical port that does not exist",
			NB: twoPorts, Local: []string{"p1", "p2", "not-there"},
		},
		{Name: "multicast-off", About: "a switch that does not relay unregistered multicast", Local: bothPorts, NB: script(twoPorts, `
			set logical_switch sw0 other_config:mcast_snoop=false other_config:mcast_flood_unregistered=false
			lsp-set-addresses p2 "0a:00:00:00:00:02" unknown
		`)},
		{Name: "no-arp-responder", About: "options that take the ARP responder and lookups away", Local: bothPorts, NB: script(twoPorts, `
			set logical_switch sw0 other_config:vlan-passthru=true
			lsp-add sw0 p3
			lsp-set-addresses p3 "0a:00:00:00:00:03 10.0.0.3"
			set logical_switch_port p3 options:arp_proxy="10.0.0.64/26"
		`)},
	}
}

func portSecurity() []Content {
	secured := func(name, about string, addresses ...string) Content {
		quoted := make([]string, len(addresses))
		for i, a := range addresses {
			quoted[i] = `"` + a + `"`
		}
		return Content{
			Name: "security-" + name, About: "port security: " + about, Local: bothPorts,
			NB: script(twoPorts, "lsp-set-port-security p1 "+strings.Join(quoted, " ")),
		}
	}
	return []Content{
		secured("mac", "a MAC address", "0a:00:00:00:00:01"),
		secured("ip4", "MAC and IPv4", "0a:00:00:00:00:01 10.0.0.1"),
		secured("ip6", "MAC and IPv6", "0a:00:00:00:00:01 fd00::1"),
		secured("both", "MAC, IPv4 and IPv6", "0a:00:00:00:00:01 10.0.0.1 fd00::1"),
		secured("several", "several MAC addresses, one without IP", "0a:00:00:00:00:01 10.0.0.1 10.0.0.3 fd00::1 fd00::3", "0a:00:00:00:00:11", "0a:00:00:00:00:12 10.0.0.12"),
		secured("masks", "prefixes: a host in a network, a network, an IPv6 network", "0a:00:00:00:00:01 10.0.0.1/24 192.168.4.0/22 fd00::/64", "0a:00:00:00:00:12 0.0.0.0/0 10.0.0.4/32 fe80::/10"),
		secured("multicast", "a port that may use multicast addresses", "0a:00:00:00:00:01 224.0.0.0/4 240.0.0.1 ff00::/8"),
	}
}

func remotes() []Content {
	fourPorts := script(twoPorts, `
		lsp-add sw0 r1
		lsp-set-addresses r1 "0a:00:00:00:00:11 10.0.0.17"
		lsp-add sw0 r2
		lsp-set-addresses r2 "0a:00:00:00:00:12 10.0.0.18" unknown
	`)
	return []Content{
		{
			Name: "remote", About: "ports on two other chassis", NB: fourPorts, Local: bothPorts,
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), chassis("hv3", "geneve", "172.31.0.103"), "lsp-bind r1 hv2", "lsp-bind r2 hv3"),
		},
		{Name: "remote-idle", About: "a chassis that has no port", NB: fourPorts, Local: bothPorts, SB: chassis("hv2", "geneve", "172.31.0.102")},
		{
			Name: "remote-many", About: "broadcast to five chassis", NB: fourPorts + func() string { s, _ := ports("sw0", "x", 3, 5); return s }(), Local: bothPorts,
			SB: func() string {
				var b strings.Builder
				for i := 1; i <= 5; i++ {
					b.WriteString(chassis(fmt.Sprintf("hv%d", i+1), "geneve", fmt.Sprintf("172.31.0.%d", 101+i)))
					fmt.Fprintf(&b, "lsp-bind x%d hv%d\n", i, i+1)
				}
				return b.String()
			}(),
		},
		{
			Name: "remote-only-one-here", About: "a multicast group of local and remote unknown ports", NB: script(fourPorts, "lsp-set-addresses p1 unknown"), Local: []string{"p1"},
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2", "lsp-bind r2 hv2"),
		},
		{
			Name: "remote-port-group", About: "port groups with one, no and all ports here", Local: bothPorts, NB: script(fourPorts, `
				create address_set name=a4 addresses="10.0.0.1 10.0.0.2 10.0.0.3"
				pg-add pg1 p1 r1 r2
				pg-add pg2 r1 r2
				pg-add pg3 p1 p2
				acl-add pg1 to-lport 1003 "outport == @pg1 && ip4.src == \$a4" allow-related
				acl-add pg2 to-lport 1002 "outport == @pg2 && ip4.src == \$a4" drop
				acl-add pg3 from-lport 1001 "inport == {@pg3, @pg2} && ip4.dst == \$a4 && tcp.dst == {1, 2}" drop
			`), SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2", "lsp-bind r2 hv2"),
		},
		{Name: "remote-requested", About: "ports that ask for a chassis: this one by name, another one, none", NB: script(fourPorts, `
			set logical_switch_port p1 options:requested-chassis=n1
			set logical_switch_port p2 options:requested-chassis=hv2
			set logical_switch_port r1 options:requested-chassis=hv2
		`), Local: []string{"p1", "p2", "r2"}, SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2")},
		{
			Name: "remote-vxlan", About: "a chassis that has only VXLAN", NB: fourPorts, Local: bothPorts,
			VS: "set open . external_ids:ovn-encap-type=geneve,vxlan",
			SB: script(chassis("hv2", "vxlan", "172.31.0.102"), chassis("hv3", "geneve", "172.31.0.103"), "lsp-bind r1 hv2", "lsp-bind r2 hv3"),
		},
		{
			Name: "remote-both-encaps", About: "a chassis that prefers Geneve to VXLAN", NB: fourPorts, Local: bothPorts,
			VS: "set open . external_ids:ovn-encap-type=vxlan,geneve",
			SB: script(chassis("hv2", "vxlan,geneve", "172.31.0.102"), "lsp-bind r1 hv2", "lsp-bind r2 hv2"),
		},
		{
			Name: "remote-no-common-encap", About: "a chassis that cannot be reached", NB: fourPorts, Local: bothPorts,
			SB: script(chassis("hv2", "stt", "172.31.0.102"), "lsp-bind r1 hv2"),
		},
		{
			Name: "remote-two-ips", About: "a chassis with two encapsulation addresses, a port bound to the second", NB: fourPorts, Local: bothPorts, AnyTunnel: true,
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), `
				--id=@e create encap chassis_name=hv2 type=geneve ip=172.31.0.112 options:csum=false
				add chassis hv2 encaps @e
				lsp-bind r1 hv2
				lsp-bind r2 hv2
				set port_binding r2 encap=@e
			`),
		},
		{
			Name: "remote-ipv6-underlay", About: "a tunnel over IPv6", NB: fourPorts, Local: bothPorts,
			SB: script(chassis("hv2", "geneve", "fd31::102"), "lsp-bind r1 hv2"),
		},
		{
			Name: "transport-zones", About: "only one of three chassis shares a transport zone", NB: fourPorts, Local: bothPorts,
			VS: "set open . external_ids:ovn-transport-zones=tz1,tz2",
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), chassis("hv3", "geneve", "172.31.0.103"), chassis("hv4", "geneve", "172.31.0.104"), `
				set chassis hv2 transport_zones=tz2,tz3
				set chassis hv3 transport_zones=tz4
				lsp-bind r1 hv2
				lsp-bind r2 hv3
			`),
		},
		{
			Name: "monitor-all", About: "the whole Southbound database is read", NB: script(fourPorts, "ls-add sw1\nlsp-add sw1 far\nlsp-set-addresses far \"0a:00:00:00:00:21 10.1.0.1\""), Local: bothPorts,
			VS: "set open . external_ids:ovn-monitor-all=true",
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2", "lsp-bind far hv2"),
		},
		{Name: "older-chassis", About: "a chassis without feature flags: ovn-northd writes logical flows for older agents", NB: script(fourPorts, `
			acl-add sw0 to-lport 1001 "ip4 && tcp.dst == 80" allow-related
			acl-add sw0 to-lport 1000 ip drop
		`), Local: bothPorts, SB: "chassis-add hv2 geneve 172.31.0.102\nlsp-bind r1 hv2"},
	}
}

func acls() []Content {
	with := func(name, about string, nb ...string) Content {
		return Content{Name: "acl-" + name, About: about, NB: script(append([]string{twoPorts}, nb...)...), Local: bothPorts}
	}
	return []Content{
		with("stateless", "allow-stateless and drop", `
			acl-add sw0 from-lport 1003 "inport == \"p1\" && ip4 && tcp" allow-stateless
			acl-add sw0 to-lport 1003 "outport == \"p1\" && ip4 && tcp" allow-stateless
			acl-add sw0 from-lport 1001 "ip4 && udp" allow
			acl-add sw0 to-lport 1000 ip drop
		`),
		with("stateful", "allow-related and drop, both directions", `
			acl-add sw0 from-lport 1002 "inport == \"p1\" && ip4 && tcp.dst == 80" allow-related
			acl-add sw0 to-lport 1002 "outport == \"p1\" && ip6 && icmp6" allow-related
			acl-add sw0 to-lport 1001 "outport == \"p1\" && ip4 && icmp4.type == 8" allow-related
			acl-add sw0 from-lport 1000 "ip4 || ip6" drop
			acl-add sw0 to-lport 1000 "ip" drop
		`),
		with("mixed", "stateless above stateful", `
			acl-add sw0 from-lport 2000 "ip4 && udp.dst == 53" allow-stateless
			acl-add sw0 to-lport 2000 "ip4 && udp.src == 53" allow-stateless
			acl-add sw0 from-lport 1000 ip allow-related
			acl-add sw0 to-lport 0 ip drop
		`),
		with("priorities", "the whole range of priorities, the same match twice", `
			acl-add sw0 to-lport 0 "ip4.src == 10.0.0.1" drop
			acl-add sw0 to-lport 1 "ip4.src == 10.0.0.1" allow
			acl-add sw0 to-lport 32767 "ip4.src == 10.0.0.1" allow-related
			acl-add sw0 from-lport 32767 "eth.type == 0x1234" drop
			acl-add sw0 from-lport 0 1 drop
		`),
		with("address-sets", "sets of IPv4, IPv6 and MAC addresses; an empty and a single one", `
			create address_set name=a4 addresses="10.0.0.1 10.0.0.2 10.1.0.0/16"
			create address_set name=a6 addresses="\"fd00::1\" \"fd00::/64\""
			create address_set name=macs addresses="\"0a:00:00:00:00:01\" \"0a:00:00:00:00:02\""
			create address_set name=one addresses="10.9.9.9"
			create address_set name=none
			acl-add sw0 from-lport 1006 "ip4.src == \$a4" allow-related
			acl-add sw0 from-lport 1005 "ip6.dst == \$a6" allow-related
			acl-add sw0 from-lport 1004 "eth.src == \$macs && ip4.dst == \$one" drop
			acl-add sw0 from-lport 1003 "ip4.src == \$none" drop
			acl-add sw0 from-lport 1002 "ip4.src == {\$a4, \$one, 10.7.7.7}" drop
			acl-add sw0 from-lport 1001 "ip4.src != \$one && ip4" drop
		`),
		with("port-groups", "ACLs of a port group, with its address sets and across switches", `
			ls-add sw1
			lsp-add sw1 q1
			lsp-set-addresses q1 "0a:00:00:00:01:01 10.1.0.1 fd01::1"
			pg-add pg1 p1 q1
			pg-add pg2 p2
			pg-add empty
			acl-add pg1 from-lport 1002 "inport == @pg1 && ip4.dst == \$pg2_ip4" allow-related
			acl-add pg1 to-lport 1002 "outport == @pg1 && ip6.src == \$pg1_ip6" allow-related
			acl-add pg1 to-lport 1001 "outport == @pg1 && ip" drop
			acl-add pg2 to-lport 1001 "outport == {@pg1, @pg2} && tcp" drop
			acl-add empty to-lport 1000 "outport == @empty && ip" drop
			acl-add sw0 from-lport 1000 "inport == @pg1 && ip4.src == \$pg1_ip4 && tcp" allow
		`),
		with("conjunctions", "two and three dimensions, ports and addresses", `
			create address_set name=a4 addresses="10.0.0.1 10.0.0.2 10.0.0.3"
			pg-add pg1 p1 p2
			acl-add sw0 from-lport 1003 "ip4.src == \$a4 && tcp.dst == {80, 443, 8080}" allow-related
			acl-add sw0 from-lport 1002 "ip4.src == \$a4 && ip4.dst == {10.1.0.0/16, 10.2.0.0/16} && tcp.dst == {80, 443}" drop
			acl-add pg1 to-lport 1001 "outport == @pg1 && ip4.src == \$a4 && udp.dst == {53, 123}" allow-related
			acl-add pg1 to-lport 1000 "outport == @pg1 && (ip4.src == \$a4 || ip4.dst == \$a4)" drop
		`),
		with("conjunctions-shared", "conjunctions of several ACLs that share members, at one priority", `
			create address_set name=a4 addresses="10.0.0.1 10.0.0.2 10.0.0.3"
			acl-add sw0 from-lport 1001 "ip4.src == \$a4 && tcp.dst == {80, 443}" allow-related
			acl-add sw0 from-lport 1001 "ip4.src == \$a4 && tcp.dst == {22, 443}" drop
			acl-add sw0 from-lport 1001 "ip4.src == \$a4 && ip4.dst == {10.0.1.1, 10.0.1.2}" allow-related
			acl-add sw0 from-lport 1001 "ip4.src == 10.0.0.2 && ip" drop
		`),
		with("conjunction-superseded", "a plain match that equals members of a conjunction", `
			acl-add sw0 to-lport 1001 "ip4.src == {10.0.0.1, 10.0.0.2} && ip4.dst == {10.0.0.3, 10.0.0.4}" allow
			acl-add sw0 to-lport 1001 "ip4.src == {10.0.0.1, 42.42.42.42} && ip4.dst == {10.0.0.7, 10.0.0.8}" drop
			acl-add sw0 to-lport 1001 "ip4.dst == 10.0.0.3" drop
			acl-add sw0 to-lport 1001 "(ip4.dst == 10.0.0.4 || ip4.src == 10.0.0.1) && udp.dst == {1, 2}" drop
		`),
		with("ranges", "inequalities and ranges of ports", `
			acl-add sw0 from-lport 1004 "ip4 && tcp.dst >= 1024 && tcp.dst <= 65000" allow-related
			acl-add sw0 from-lport 1003 "ip4 && 1000 < udp.src < 2047" drop
			acl-add sw0 from-lport 1002 "ip4 && tcp.dst != 22" drop
			acl-add sw0 from-lport 1001 "ip4.src != 10.0.0.0/24 && ip4.dst < 10.0.0.128" drop
			acl-add sw0 from-lport 1000 "ip6 && tcp.dst != {22, 23}" drop
		`),
		with("fields", "fields that are rarely used", `
			acl-add sw0 from-lport 1012 "ip.ttl == 1" drop
			acl-add sw0 from-lport 1010 "ip.is_frag" drop
			acl-add sw0 from-lport 1009 "ip4 && ip.frag == 2 || ip.later_frag" drop
			acl-add sw0 from-lport 1008 "arp && arp.op == 1 && arp.spa == 10.0.0.1 && arp.tha == 00:00:00:00:00:00" drop
			acl-add sw0 from-lport 1007 "nd_ns && nd.target == fd00::1" drop
			acl-add sw0 from-lport 1006 "icmp6.type == 128 && icmp6.code == 0" drop
			acl-add sw0 from-lport 1005 "sctp.dst == 132 || sctp.src == 132" drop
			acl-add sw0 from-lport 1004 "eth.mcast && !eth.bcast" drop
			acl-add sw0 from-lport 1003 "ip4.mcast || ip6.mcast" drop
			acl-add sw0 from-lport 1002 "ip.proto == 47" drop
			acl-add sw0 from-lport 1001 "eth.src[40] == 1 || ip4.src[0..7] == {1, 2, 3}" drop
			acl-add sw0 from-lport 1000 "vlan.present" drop
			acl-add sw0 from-lport 999 "tcp.flags == 2 && ip6.dst == fe80::/10" drop
		`),
		func() Content {
			c := with("deviations", "matches that ovn-controller makes too wide", `
				acl-add sw0 from-lport 1002 "ip4 && ip.dscp == 46" drop
				acl-add sw0 from-lport 1001 "ip.dscp == {1, 2} && tcp.dst == {80, 443}" drop
				acl-add sw0 to-lport 1000 "!ip.is_frag" drop
			`)
			c.Deviates = true
			return c
		}(),
		with("negations", "negated sets and groups of terms", `
			create address_set name=a4 addresses="10.0.0.1 10.0.0.2"
			acl-add sw0 to-lport 1004 "ip4 && !(ip4.src == \$a4)" drop
			acl-add sw0 to-lport 1003 "ip4 && !(ip4.src == 10.0.0.0/8 && ip4.dst == 10.0.0.0/30)" drop
			acl-add sw0 to-lport 1002 "!(eth.src == 0a:00:00:00:00:01 || vlan.present)" drop
			acl-add sw0 to-lport 1001 "outport != \"p1\" && ip6" drop
		`),
		with("after-lb", "ACLs that apply after load balancing", `
			--apply-after-lb acl-add sw0 from-lport 1002 "inport == \"p1\" && ip4 && tcp" allow-related
			--apply-after-lb acl-add sw0 from-lport 1001 "inport == \"p1\" && ip4" drop
			acl-add sw0 from-lport 1003 "inport == \"p1\" && ip4" allow-related
		`),
		with("labels", "ACLs that label connections", `
			--label=1234 acl-add sw0 to-lport 1002 "outport == \"p1\" && ip4" allow-related
			--label=4294967295 acl-add sw0 from-lport 1002 "inport == \"p1\" && ip4" allow-related
			acl-add sw0 to-lport 1001 ip allow-related
		`),
		with("default-drop", "what no ACL allows is dropped", `
			set nb_global . options:default_acl_drop=true
			acl-add sw0 from-lport 1001 "inport == \"p1\" && ip4" allow-related
			acl-add sw0 to-lport 1001 "outport == \"p1\" && arp" allow
		`),
		with("constants", "matches that are always or never true, and one that does not parse", `
			acl-add sw0 from-lport 1004 1 allow
			acl-add sw0 from-lport 1003 0 drop
			acl-add sw0 from-lport 1002 "ip4 && ip6" drop
			acl-add sw0 from-lport 1001 "inport == \"nowhere\" && ip4" drop
			acl-add sw0 from-lport 1000 "ip4.src == 10.0.0.1 && ip4.src == 10.0.0.2" drop
			acl-add sw0 to-lport 1000 "tcp.dst == 80 && udp.dst == 80" drop
			acl-add sw0 to-lport 999 "no.such.field == 1" drop
			acl-add sw0 to-lport 998 "ip4 &&" drop
			acl-add sw0 to-lport 997 "ip4.src == \$nosuchset" drop
		`),
		with("ct", "ACLs on the state of the connection", `
			acl-add sw0 to-lport 1002 "ct.new && tcp" drop
			acl-add sw0 to-lport 1001 "ct.est && !ct.rpl && ct_label.blocked == 0 && ip4" allow-related
		`),
		with("log-and-reject", "ACLs whose actions end in the controller", `
			--log --severity=info --name=drop-it acl-add sw0 to-lport 1002 "ip4 && tcp.dst == 1" drop
			--log acl-add sw0 to-lport 1001 "ip4 && tcp.dst == 2" allow-related
			acl-add sw0 to-lport 1000 "ip4 && tcp.dst == {3, 4} && ip4.src == {10.0.0.1, 10.0.0.2}" reject
		`),
		with("log-meters", "ACLs whose log a meter limits, one that ACLs share and one of each ACL, in both units", `
			meter-add shared drop 10 kbps
			--fair meter-add fair drop 100 pktps 7
			--log --meter=shared --severity=alert --name=a acl-add sw0 to-lport 1006 "ip4 && tcp.dst == 1" drop
			--log --meter=shared --severity=notice acl-add sw0 from-lport 1005 "ip6 && tcp.dst == {2, 3}" allow-related
			--log --meter=fair --severity=debug --name=c acl-add sw0 to-lport 1004 "ip4.src == {10.0.0.1, 10.0.0.2} && udp.dst == {4, 5}" drop
			--log --meter=fair --severity=warning --name=d acl-add sw0 from-lport 1003 "icmp" allow-stateless
			--log --meter=shared --name="a name with, punctuation;" acl-add sw0 to-lport 1001 "ip4 && udp.dst == 7" drop
		`),
		func() Content {
			c := with("log-reject", "an ACL that logs and rejects, which ovn-controller does not let block an established connection", `
				--log --name=both acl-add sw0 to-lport 1001 "ip4 && udp.dst == 7" reject
				acl-add sw0 to-lport 1000 ip4 allow-related
			`)
			c.Deviates = true
			return c
		}(),
	}
}

func routers() []Content {
	// Two switches with a local port each and a distributed router between them.
	routed := script(`
		ls-add sw0
		ls-add sw1
		lr-add lr0
		lsp-add sw0 p1
		lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 fd00::1"
		lsp-add sw1 p2
		lsp-set-addresses p2 "0a:00:00:00:01:02 10.1.0.2 fd01::2"
	`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"), attach("lr0", "sw1", "0a:00:00:00:01:fe", "10.1.0.254/24", "fd01::fe/64"))
	with := func(name, about string, nb ...string) Content {
		return Content{Name: "router-" + name, About: about, NB: script(append([]string{routed}, nb...)...), Local: bothPorts}
	}
	return []Content{
		with("two-switches", "a distributed router between two local switches"),
		{
			Name: "router-one-port-here", About: "a router's far switch is local because a port of the near one is", NB: routed, Local: []string{"p1"},
			SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind p2 hv2"),
		},
		{Name: "router-not-here", About: "a router none of whose switches has a port here", NB: script(routed, twoSwitchesAway), Local: []string{"lone"}},
		with("ipv6-only", "a third switch that has IPv6 only", `
			ls-add sw2
			lsp-add sw2 p3
			lsp-set-addresses p3 "0a:00:00:00:02:03 fd02::3"
		`, attach("lr0", "sw2", "0a:00:00:00:02:fe", "fd02::fe/64")),
		with("static-routes", "static routes, IPv4 and IPv6, by destination and by source, one to nowhere", `
			lr-route-add lr0 192.168.0.0/16 10.0.0.100
			lr-route-add lr0 0.0.0.0/0 10.1.0.100
			lr-route-add lr0 fd10::/32 fd00::100
			lr-route-add lr0 ::/0 fd01::100 lr0-sw1
			--policy=src-ip lr-route-add lr0 10.0.0.0/25 10.1.0.101
			lr-route-add lr0 172.16.0.0/12 discard
		`),
		with("mtu", "router ports that ask for the size of packets", `
			set logical_router_port lr0-sw0 options:gateway_mtu=1400
			set logical_router_port lr0-sw1 options:gateway_mtu=1300
		`),
		with("copp", "meters for what the controller answers", `
			meter-add m0 drop 10 pktps
			meter-add m1 drop 20 kbps 5
			copp-add both reject m0
			copp-add both tcp-reset m0
			copp-add both icmp4-error m0
			copp-add both icmp6-error m1
			copp-add both nd-na m1
			lr-copp-add both lr0
			ls-copp-add both sw0
			set logical_router_port lr0-sw0 options:gateway_mtu=1400
			acl-add sw0 from-lport 1000 "ip4 && tcp.dst == {3, 4}" reject
			--log --meter=m1 acl-add sw0 to-lport 1000 "ip6 && tcp.dst == 5" drop
		`),
		with("route-tables", "a route table for one router port", `
			lrp-set-options lr0-sw0 route_table=red
			--route-table=red lr-route-add lr0 192.168.0.0/16 10.1.0.77
			lr-route-add lr0 192.168.0.0/16 10.1.0.78
		`),
		{Name: "routers-chained", About: "two routers, each with a switch", Local: bothPorts, NB: script(`
			ls-add sw0
			ls-add sw1
			lr-add lr0
			lr-add lr1
			lsp-add sw0 p1
			lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 fd00::1"
			lsp-add sw1 p2
			lsp-set-addresses p2 "0a:00:00:00:01:02 10.1.0.2 fd01::2"
		`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"), attach("lr1", "sw1", "0a:00:00:00:01:fe", "10.1.0.254/24", "fd01::fe/64"),
			join("lr0", "lr1", 1), `
			lr-route-add lr0 10.1.0.0/24 169.254.1.2
			lr-route-add lr1 10.0.0.0/24 169.254.1.1
			lr-route-add lr0 fd01::/64 fdff:1::2
			lr-route-add lr1 fd00::/64 fdff:1::1
		`)},
		{Name: "routers-on-a-switch", About: "two routers joined by a switch without workloads", Local: bothPorts, NB: script(`
			ls-add sw0
			ls-add sw1
			ls-add transit
			lr-add lr0
			lr-add lr1
			lsp-add sw0 p1
			lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1 fd00::1"
			lsp-add sw1 p2
			lsp-set-addresses p2 "0a:00:00:00:01:02 10.1.0.2 fd01::2"
		`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"), attach("lr1", "sw1", "0a:00:00:00:01:fe", "10.1.0.254/24", "fd01::fe/64"),
			attach("lr0", "transit", "0a:00:00:00:02:01", "100.64.0.1/24"), attach("lr1", "transit", "0a:00:00:00:02:02", "100.64.0.2/24"), `
			lr-route-add lr0 10.1.0.0/24 100.64.0.2
			lr-route-add lr1 10.0.0.0/24 100.64.0.1
		`)},
		with("static-mac", "static MAC bindings, with and without override", `
			static-mac-binding-add lr0-sw1 fd01::77 0a:00:00:00:01:77
			create static_mac_binding logical_port=lr0-sw0 ip=10.0.0.77 mac="\"0a:00:00:00:00:77\"" override_dynamic_mac=true
		`),
		func() Content {
			c := with("mac-bindings", "learned MAC bindings, beside a static one for the same address", "static-mac-binding-add lr0-sw0 10.0.0.77 0a:00:00:00:00:77")
			c.SB = `
				--id=@d get datapath_binding lr0
				create mac_binding logical_port=lr0-sw0 ip=10.0.0.77 mac="\"0a:00:00:00:00:99\"" datapath=@d
				create mac_binding logical_port=lr0-sw0 ip=10.0.0.78 mac="\"0a:00:00:00:00:98\"" datapath=@d timestamp=1
				create mac_binding logical_port=lr0-sw1 ip="\"fd01::78\"" mac="\"0a:00:00:00:01:98\"" datapath=@d
				create mac_binding logical_port=lr0-sw1 ip="\"fe80::78\"" mac="\"0a:00:00:00:01:97\"" datapath=@d
			`
			return c
		}(),
		with("policies", "policies that allow, drop and reroute", `
			lr-policy-add lr0 1003 "ip4.src == 10.0.0.0/24" allow
			lr-policy-add lr0 1002 "ip4.src == 10.1.0.0/24 && ip4.dst == 10.0.0.1" drop
			lr-policy-add lr0 1001 "ip4.dst == 8.8.8.0/24" reroute 10.1.0.100
			lr-policy-add lr0 1000 "ip6.dst == fd09::/32" reroute fd01::100
			lr-policy-add lr0 999 "ip4.dst == 9.9.9.9" allow pkt_mark=7
		`),
		with("remote", "a router whose switches reach to another chassis", `
			lsp-add sw1 r1
			lsp-set-addresses r1 "0a:00:00:00:01:11 10.1.0.17"
		`).bind(script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2")),
		with("options", "router options: learning, no unicast flooding, dynamic neighbours", `
			set logical_router lr0 options:always_learn_from_arp_request=false options:dynamic_neigh_routers=true options:mcast_relay=false
			set logical_switch_port sw0-lr0 options:arp_proxy=10.0.0.200
		`),
		with("acl", "a stateful ACL beside a router", `
			acl-add sw0 to-lport 1001 "ip4.src == 10.1.0.0/24 && tcp.dst == {80, 443}" allow-related
			acl-add sw0 to-lport 1000 ip drop
			pg-add pg1 p1 p2
			acl-add pg1 from-lport 1000 "inport == @pg1 && ip4" allow-related
		`),
		with("disabled", "a disabled router port and a disabled router", `
			ls-add sw2
			lsp-add sw2 p3
			lr-add lr1
			set logical_router lr1 enabled=false
		`, attach("lr0", "sw2", "0a:00:00:00:02:fe", "10.2.0.254/24"), attach("lr1", "sw2", "0a:00:00:00:02:fd", "10.2.0.253/24"), `
			lrp-set-enabled lr0-sw2 disabled
		`),
		with("ecmp", "two next hops for a prefix", `
			--ecmp lr-route-add lr0 192.168.0.0/16 10.0.0.100
			--ecmp lr-route-add lr0 192.168.0.0/16 10.0.0.101
		`),
	}
}

// twoSwitchesAway is a switch of its own, to be the only one with a local port.
const twoSwitchesAway = `
	ls-add island
	lsp-add island lone
	lsp-set-addresses lone "0a:00:00:00:09:01 10.9.0.1"
`

// bind returns c with Southbound commands.
func (c Content) bind(sb string) Content {
	c.SB = sb
	return c
}

// services are what a switch does for its ports.
func services() []Content {
	return []Content{
		{Name: "forwarding-group", About: "a virtual address in front of a group of ports", NB: script(twoPorts, "fwd-group-add fg0 sw0 10.0.0.100 0a:00:00:00:00:64 p1 p2"), Local: bothPorts},
		{Name: "qos", About: "rate limits and marks of a switch", Local: bothPorts, NB: script(twoPorts, `
			qos-add sw0 from-lport 100 "inport == \"p1\" && ip4" rate=1000 burst=100
			qos-add sw0 to-lport 100 "outport == \"p1\" && ip4" dscp=46
			qos-add sw0 to-lport 99 "outport == \"p2\" && ip4" rate=1000
		`)},
		{Name: "dhcp", About: "DHCPv4 and DHCPv6 options of a port, and names", Local: bothPorts, NB: script(twoPorts, `
			--id=@d4 create dhcp_options cidr=10.0.0.0/24 options:server_id=10.0.0.254 options:server_mac=\"0a:00:00:00:00:fe\" options:lease_time=3600 options:router=10.0.0.254
			set logical_switch_port p1 dhcpv4_options=@d4
			--id=@dns create dns records:www.example=10.0.0.1
			add logical_switch sw0 dns_records @dns
		`)},
	}
}
