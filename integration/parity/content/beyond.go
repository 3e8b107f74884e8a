package content

// Beyond returns contents that an agent which agrees on those of All may still differ on: physical networks,
// containers, gateways, address translation and load balancers. They show how far there is to go.
func Beyond() []Content {
	const mapped = `
		--may-exist add-br br-ex
		set bridge br-ex datapath_type=netdev
		set open . external_ids:ovn-bridge-mappings=phys:br-ex
	`
	localnet := func(tag string) string {
		return script(twoPorts, `
			lsp-add sw0 ln0
			lsp-set-type ln0 localnet
			lsp-set-addresses ln0 unknown
			lsp-set-options ln0 network_name=phys
		`, tag)
	}
	return []Content{
		{Name: "localnet", About: "a switch on a physical network", NB: localnet(""), VS: mapped, Local: bothPorts},
		{Name: "localnet-tag", About: "a switch on a VLAN of a physical network", NB: localnet("set logical_switch_port ln0 tag_request=77"), VS: mapped, Local: bothPorts},
		{Name: "localnet-unmapped", About: "a physical network that is not here", NB: localnet(""), Local: bothPorts},
		{
			Name: "localnet-remote", About: "remote ports of a switch on a physical network are reached through it", NB: script(localnet(""), "lsp-add sw0 r1\nlsp-set-addresses r1 \"0a:00:00:00:00:11 10.0.0.17\""),
			VS: mapped, Local: bothPorts, SB: script(chassis("hv2", "geneve", "172.31.0.102"), "lsp-bind r1 hv2"),
		},
		{Name: "nested", About: "containers: ports with a parent and a tag", Local: bothPorts, NB: script(twoPorts, `
			ls-add sw1
			lsp-add sw1 c1 p1 11
			lsp-set-addresses c1 "0a:00:00:00:01:01 10.1.0.1"
			lsp-add sw1 c2 p1 12
			lsp-set-addresses c2 "0a:00:00:00:01:02 10.1.0.2"
			lsp-set-port-security c2 "0a:00:00:00:01:02 10.1.0.2"
			lsp-add sw0 c3 p2 13
		`)},
		{Name: "l2gateway", About: "a layer 2 gateway port of this chassis", VS: mapped, Local: bothPorts, NB: script(twoPorts, `
			lsp-add sw0 gw0
			lsp-set-type gw0 l2gateway
			lsp-set-addresses gw0 unknown
			lsp-set-options gw0 network_name=phys l2gateway-chassis=n1
		`)},
		{Name: "gateway-router", About: "a gateway router on this chassis, with address translation", Local: bothPorts, NB: script(twoPorts, `
			lr-add lr0
			set logical_router lr0 options:chassis=n1
			ls-add out
			lsp-add out ln0
			lsp-set-type ln0 localnet
			lsp-set-addresses ln0 unknown
			lsp-set-options ln0 network_name=phys
			lr-nat-add lr0 snat 172.16.0.1 10.0.0.0/24
			lr-nat-add lr0 dnat_and_snat 172.16.0.2 10.0.0.1
		`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24"), attach("lr0", "out", "0a:00:00:00:02:fe", "172.16.0.1/24")), VS: mapped},
		{Name: "gateway-port", About: "a distributed router whose gateway port is on this chassis, or on another one", Local: bothPorts, NB: script(twoPorts, `
			lr-add lr0
			ls-add out
			lsp-add out ln0
			lsp-set-type ln0 localnet
			lsp-set-addresses ln0 unknown
			lsp-set-options ln0 network_name=phys
		`, attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24"), attach("lr0", "out", "0a:00:00:00:02:fe", "172.16.0.1/24"), `
			lrp-set-gateway-chassis lr0-out n1 20
			lrp-set-gateway-chassis lr0-out hv2 10
			lr-nat-add lr0 snat 172.16.0.1 10.0.0.0/24
			lr-nat-add lr0 dnat_and_snat 172.16.0.2 10.0.0.1 p1 0a:00:00:00:02:02
		`), VS: mapped, SB: chassis("hv2", "geneve", "172.31.0.102")},
		{Name: "load-balancer", About: "load balancers of a switch and of a router, IPv4 and IPv6", Local: bothPorts, NB: script(twoPorts, "lr-add lr0",
			attach("lr0", "sw0", "0a:00:00:00:00:fe", "10.0.0.254/24", "fd00::fe/64"), `
			lb-add lb0 10.9.0.1:80 10.0.0.1:8080,10.0.0.2:8080 tcp
			lb-add lb1 [fd09::1]:53 [fd00::1]:53,[fd00::2]:53 udp
			lb-add lb2 10.9.0.2 10.0.0.1,10.0.0.2
			ls-lb-add sw0 lb0
			ls-lb-add sw0 lb1
			lr-lb-add lr0 lb2
		`)},
	}
}
