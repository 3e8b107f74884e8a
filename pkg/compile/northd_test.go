package compile

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// northbound is a configuration from which ovn-northd(8) makes nearly every action it knows, as ovn-nbctl(8) commands.
const northbound = `
ls-add sw0 -- set logical_switch sw0 other_config:subnet=10.0.0.0/24 other_config:mcast_snoop=true other_config:mcast_querier=true other_config:mcast_eth_src=00:00:00:00:0f:01 other_config:mcast_ip4_src=10.0.0.1
lsp-add sw0 p1 -- lsp-set-addresses p1 "50:54:00:00:00:01 10.0.0.11 2001:db8::11" -- lsp-set-port-security p1 "50:54:00:00:00:01 10.0.0.11"
lsp-add sw0 p2 -- lsp-set-addresses p2 "50:54:00:00:00:02 10.0.0.12 2001:db8::12"
lsp-add sw0 p3 -- lsp-set-addresses p3 unknown
lsp-add sw0 vip -- set logical_switch_port vip type=virtual options:virtual-ip=10.0.0.50 options:virtual-parents=p1,p2 -- lsp-set-addresses vip "50:54:00:00:00:50 10.0.0.50"
lsp-add sw0 ext -- lsp-set-type ext external -- lsp-set-addresses ext "50:54:00:00:00:60 10.0.0.60"
lsp-add sw0 q1 -- lsp-set-addresses q1 "50:54:00:00:00:07 10.0.0.17" -- lsp-set-options q1 requested-chassis=hv1 qdisc_queue_id=3
set logical_switch_port p3 options:localnet_learn_fdb=true
acl-add sw0 to-lport 1000 "outport == \"p1\" && tcp.dst == 22" allow-related
--log --name=drop1 --severity=alert --meter=acl-meter acl-add sw0 to-lport 900 "ip4" drop
--log --name=rej acl-add sw0 from-lport 900 "inport == \"p1\" && udp" reject
--apply-after-lb acl-add sw0 from-lport 800 "inport == \"p1\" && ip6" drop
--label=1234 acl-add sw0 from-lport 700 "inport == \"p2\" && ip4" allow-related
acl-add sw0 from-lport 600 "inport == \"p2\" && icmp4" allow-stateless
meter-add acl-meter drop 10 kbps
--fair meter-add fair-meter drop 10 pktps
qos-add sw0 from-lport 100 "inport == \"p1\"" dscp=46
qos-add sw0 to-lport 100 "outport == \"p2\"" rate=1000 burst=2000
qos-add sw0 to-lport 90 "outport == \"p1\"" rate=500
lb-add lb0 10.0.0.100:80 10.0.0.11:8080,10.0.0.12:8080 tcp
lb-add lb1 10.0.0.101:53 10.0.0.11:53 udp
lb-add lb2 [2001:db8::100]:80 [2001:db8::11]:8080,[2001:db8::12]:8080 tcp
lb-add lb3 10.0.0.103 10.0.0.11,10.0.0.12
--event lb-add lb4 10.0.0.104:80 ""
--reject lb-add lb5 10.0.0.105:80 ""
lb-add lb6 10.0.0.106:5000 10.0.0.11:5000,10.0.0.12:5000 sctp
set load_balancer lb0 options:affinity_timeout=60 selection_fields=ip_src,ip_dst
set load_balancer lb1 selection_fields=eth_src,tp_src options:skip_snat=true
set load_balancer lb2 options:affinity_timeout=30
set load_balancer lb3 options:hairpin_snat_ip=10.0.0.103
ls-lb-add sw0 lb0 -- ls-lb-add sw0 lb1 -- ls-lb-add sw0 lb2 -- ls-lb-add sw0 lb3 -- ls-lb-add sw0 lb4 -- ls-lb-add sw0 lb5 -- ls-lb-add sw0 lb6
set load_balancer lb0 ip_port_mappings:10.0.0.11=p1:10.0.0.2 ip_port_mappings:10.0.0.12=p2:10.0.0.2
--id=@hc create load_balancer_health_check vip="10.0.0.100\:80" options:interval=5 -- add load_balancer lb0 health_check @hc
--id=@dns create dns records:host.example.org="10.0.0.11" -- add logical_switch sw0 dns_records @dns
--id=@d4 create dhcp_options cidr=10.0.0.0/24 options:server_id=10.0.0.1 options:server_mac=c0:ff:ee:00:00:01 options:lease_time=3600 options:router=10.0.0.1 options:mtu=1400 options:dns_server="{10.0.0.2, 10.0.0.3}" options:domain_name=\"\\\"example.org\\\"\" options:classless_static_route="{30.0.0.0/24,10.0.0.4, 0.0.0.0/0,10.0.0.1}" options:tftp_server=\"\\\"tftp.example.org\\\"\" options:domain_search_list=\"\\\"a.org,b.org\\\"\" -- add logical_switch_port p1 dhcpv4_options @d4 -- add logical_switch_port ext dhcpv4_options @d4
--id=@d6 create dhcp_options cidr=\"2001:db8::/64\" options:server_id=00:00:00:10:00:01 options:dns_server=2001:db8::53 options:domain_search=\"\\\"a.org\\\"\" -- add logical_switch_port p1 dhcpv6_options @d6
fwd-group-add fg0 sw0 10.0.0.70 00:00:00:00:00:70 p1 p2
--liveness fwd-group-add fg1 sw0 10.0.0.71 00:00:00:00:00:71 p1 p2
lr-add lr0
lrp-add lr0 lr0-sw0 00:00:00:00:ff:01 10.0.0.1/24 2001:db8::1/64 -- lsp-add sw0 sw0-lr0 -- lsp-set-type sw0-lr0 router -- lsp-set-addresses sw0-lr0 router -- lsp-set-options sw0-lr0 router-port=lr0-sw0
set logical_router_port lr0-sw0 ipv6_ra_configs:address_mode=slaac ipv6_ra_configs:mtu=1450 ipv6_ra_configs:rdnss=2001:db8::53 ipv6_ra_configs:dnssl=a.org ipv6_ra_configs:route_info=HIGH-2001:db8:1::/48 ipv6_ra_configs:router_preference=HIGH
ls-add public
lrp-add lr0 lr0-public 00:00:00:00:ff:02 172.16.0.1/24 2001:db8:2::1/64 -- lsp-add public public-lr0 -- lsp-set-type public-lr0 router -- lsp-set-addresses public-lr0 router -- lsp-set-options public-lr0 router-port=lr0-public nat-addresses=router
lsp-add public ln -- lsp-set-type ln localnet -- lsp-set-addresses ln unknown -- lsp-set-options ln network_name=physnet localnet_learn_fdb=true
lrp-set-gateway-chassis lr0-public hv1 20
set logical_router_port lr0-public options:gateway_mtu=1500 options:prefix=true options:prefix_delegation=true
lr-nat-add lr0 snat 172.16.0.1 10.0.0.0/24
lr-nat-add lr0 dnat_and_snat 172.16.0.11 10.0.0.11 p1 00:00:00:00:aa:01
lr-nat-add lr0 dnat_and_snat 172.16.0.12 10.0.0.12
--stateless lr-nat-add lr0 dnat_and_snat 172.16.0.13 10.0.0.13
--portrange lr-nat-add lr0 dnat 172.16.0.14 10.0.0.14 5000-6000
lr-nat-add lr0 snat 2001:db8:2::1 2001:db8::/64
lr-lb-add lr0 lb0 -- lr-lb-add lr0 lb1 -- lr-lb-add lr0 lb2 -- lr-lb-add lr0 lb4 -- lr-lb-add lr0 lb5 -- lr-lb-add lr0 lb6
lr-route-add lr0 0.0.0.0/0 172.16.0.254
--ecmp-symmetric-reply lr-route-add lr0 192.168.0.0/16 172.16.0.253 -- --ecmp-symmetric-reply lr-route-add lr0 192.168.0.0/16 172.16.0.252
--bfd lr-route-add lr0 192.168.7.0/24 172.16.0.251 lr0-public
--ecmp lr-route-add lr0 2001:db8:7::/64 2001:db8:2::7 -- --ecmp lr-route-add lr0 2001:db8:7::/64 2001:db8:2::8
--policy=src-ip lr-route-add lr0 10.0.0.0/25 172.16.0.250
lr-policy-add lr0 100 "ip4.src == 10.0.0.11" reroute 172.16.0.250,172.16.0.249
lr-policy-add lr0 90 "ip4.src == 10.0.0.12" drop
lr-policy-add lr0 80 "ip4.src == 10.0.0.13" allow pkt_mark=100
set logical_router lr0 options:mcast_relay=true options:always_learn_from_arp_request=false
lr-add gw0 -- set logical_router gw0 options:chassis=hv1 options:snat-ct-zone=7 options:lb_force_snat_ip=router_ip options:dnat_force_snat_ip=172.16.1.1 options:dynamic_neigh_routers=true
lrp-add gw0 gw0-sw1 00:00:00:00:ff:03 10.0.1.1/24 2001:db8:3::1/64 -- ls-add sw1 -- lsp-add sw1 sw1-gw0 -- lsp-set-type sw1-gw0 router -- lsp-set-addresses sw1-gw0 router -- lsp-set-options sw1-gw0 router-port=gw0-sw1
lrp-add gw0 gw0-ext 00:00:00:00:ff:04 172.16.1.1/24
lr-nat-add gw0 snat 172.16.1.1 10.0.1.0/24
lr-nat-add gw0 dnat 172.16.1.2 10.0.1.2
lr-lb-add gw0 lb0 -- lr-lb-add gw0 lb1 -- lr-lb-add gw0 lb6
--ecmp-symmetric-reply lr-route-add gw0 192.168.0.0/16 172.16.1.253 -- --ecmp-symmetric-reply lr-route-add gw0 192.168.0.0/16 172.16.1.252
set logical_router_port gw0-ext options:gateway_mtu=1400
lr-add lr1 -- lrp-add lr1 lr1-sw1 00:00:00:00:ff:05 10.0.1.254/24 2001:db8:3::fe/64 -- lsp-add sw1 sw1-lr1 -- lsp-set-type sw1-lr1 router -- lsp-set-addresses sw1-lr1 router -- lsp-set-options sw1-lr1 router-port=lr1-sw1
set nb_global . options:controller_event=true options:use_ct_inv_match=true
`

// chassisRows are the Southbound rows of two chassis, with the features that make ovn-northd use its newest actions.
func chassisRows() []map[string]any {
	insert := insertRow("Chassis", "", map[string]any{
		"name": "hv1", "hostname": "hv1", "encaps": []any{"named-uuid", "encap"},
		"other_config": mapOf("ct-no-masked-label", "true", "mac-binding-timestamp", "true", "ovn-ct-lb-related", "true",
			"port-up-notif", "true"),
	})
	encap := insertRow("Encap", "", map[string]any{"type": "geneve", "ip": "192.0.2.1", "chassis_name": "hv1"})
	encap["uuid-name"] = "encap"
	return []map[string]any{encap, insert}
}

// startNorthd returns what ovn-northd(8) makes of northbound.
func startNorthd(t *testing.T) southbound {
	t.Helper()
	sb := southbound{
		dhcp: map[string]map[string]logical.OptionDef{"DHCP_Options": {}, "DHCPv6_Options": {}},
		sets: addressSets{},
	}
	d := newDaemons(t)
	db := d.socket()
	d.run("ovsdb-tool", "create", "nb.db", "/usr/share/ovn/ovn-nb.ovsschema")
	d.run("ovsdb-tool", "create", "sb.db", "/usr/share/ovn/ovn-sb.ovsschema")
	d.run("ovsdb-server", append(detach, "--remote=p"+db, "nb.db", "sb.db")...)
	d.run("ovn-northd", append(detach, "--ovnnb-db="+db, "--ovnsb-db="+db)...)
	d.transact(chassisRows()...)
	nbctl := func(args ...string) {
		t.Helper()
		d.run("ovn-nbctl", append([]string{"--db=" + db, "--timeout=30"}, args...)...)
	}
	nbctl("init")
	for line := range strings.Lines(northbound) {
		if line = strings.TrimSpace(line); line != "" {
			nbctl(shellWords(t, line)...)
		}
	}

	selectRows := func(table string, columns ...string) []map[string]any {
		params, err := json.Marshal([]any{
			"OVN_Southbound", map[string]any{"op": "select", "table": table, "where": []any{}, "columns": columns},
		})
		if err != nil {
			t.Fatal(err)
		}
		var out []struct{ Rows []map[string]any }
		if err := json.Unmarshal([]byte(d.run("ovsdb-client", "transact", db, string(params))), &out); err != nil {
			t.Fatal(err)
		}
		return out[0].Rows
	}
	collect := func() {
		nbctl("--wait=sb", "sync")
		for _, r := range selectRows("Logical_Flow", "match", "actions", "pipeline", "table_id") {
			sb.flows = append(sb.flows, northdFlow{
				match: r["match"].(string), actions: r["actions"].(string), egress: r["pipeline"] == "egress",
				table: uint8(r["table_id"].(float64)),
			})
		}
	}
	collect()
	// Dropped packets are sampled instead.
	nbctl("set", "nb_global", ".", "options:debug_drop_collector_set=1", "options:debug_drop_domain_id=9")
	collect()
	// A chassis without the newer features: ct_lb instead of ct_lb_mark.
	d.transact(map[string]any{
		"op": "update", "table": "Chassis", "where": []any{}, "row": map[string]any{"other_config": mapOf()},
	})
	collect()
	for table, defs := range sb.dhcp {
		for _, r := range selectRows(table, "name", "code", "type") {
			defs[r["name"].(string)] = logical.OptionDef{Code: uint16(r["code"].(float64)), Type: r["type"].(string)}
		}
	}
	for _, r := range selectRows("Address_Set", "name", "addresses") {
		var texts []string
		if set, ok := r["addresses"].([]any); ok { // ["set", [...]]
			for _, a := range set[1].([]any) {
				texts = append(texts, a.(string))
			}
		} else {
			texts = append(texts, r["addresses"].(string))
		}
		sb.sets[r["name"].(string)], _ = logical.ParseAddressSet(texts)
	}
	return sb
}

// southbound is what the tests need of a Southbound database.
type southbound struct {
	flows []northdFlow
	dhcp  map[string]map[string]logical.OptionDef // by table
	sets  addressSets
}

type addressSets map[string][]logical.Constant

func (s addressSets) AddressSet(name string) ([]logical.Constant, bool) {
	set, ok := s[name]
	return set, ok
}

func (addressSets) PortGroup(string) ([]string, bool) { return nil, false }

type northdFlow struct {
	match, actions string
	egress         bool
	table          uint8
}

// shellWords splits a line at blanks that are not in double quotes; a backslash before a quote or a backslash keeps
// it, others are kept with the character that follows.
func shellWords(t *testing.T, line string) []string {
	t.Helper()
	var words []string
	var word strings.Builder
	quoted, any := false, false
	for i := 0; i < len(line); i++ {
		switch c := line[i]; {
		case c == '\\' && i+1 < len(line) && (line[i+1] == '"' || line[i+1] == '\\'):
			i++
			word.WriteByte(line[i])
		case c == '"':
			quoted, any = !quoted, true
		case c == ' ' && !quoted:
			if any || word.Len() > 0 {
				words = append(words, word.String())
			}
			word.Reset()
			any = false
		default:
			word.WriteByte(c)
		}
	}
	if quoted {
		t.Fatalf("unbalanced quotes: %s", line)
	}
	return append(words, word.String())
}

// TestActionsOfNorthd checks that what ovn-northd(8) writes is understood and, but for what the controller executes,
// encoded.
func TestActionsOfNorthd(t *testing.T) {
	sb := startNorthd(t)
	t.Logf("%d logical flows", len(sb.flows))
	verbs := map[string]bool{}
	for _, f := range sb.flows {
		at := logical.Stage{Table: f.table}
		if f.egress {
			at.Pipeline = logical.Egress
		}
		acts, err := logical.ParseActions(f.actions, logical.Symbols(), logical.ActionOptions{
			At: at, Tables: ingressTables, DHCPv4: sb.dhcp["DHCP_Options"], DHCPv6: sb.dhcp["DHCPv6_Options"],
		})
		if err != nil {
			t.Errorf("%s: %v", f.actions, err)
			continue
		}
		if _, err := logical.ParseMatch(f.match, logical.Symbols(), sb.sets, acts.Prereqs...); err != nil {
			t.Errorf("%s: %v", f.match, err)
		}
		for a := range acts.All() {
			verbs[logical.Verb(a)] = true
		}
		if len(acts.List) == 0 {
			verbs["drop"] = true
		}
		rules, err := encode(acts, encodeContext{
			Port:       func(string) (uint32, bool) { return 1, true },
			TunnelTo:   func(string) (uint32, bool) { return 1, true },
			Group:      func(ir.SelectGroup) uint32 { return 1 },
			RateMeter:  func(uint64, uint64) uint32 { return 1 },
			NamedMeter: func(string) uint32 { return 1 },
			Collector:  func(uint32) bool { return true },
		})
		un, unsupported := errors.AsType[*Unsupported](err)
		switch {
		case unsupported && un.Reason == unanswered:
		case err != nil:
			t.Errorf("%s: %v", f.actions, err)
		case len(openflow.AppendActions(nil, rules)) == 0 && len(acts.List) > 0:
			t.Errorf("%s: encoded as nothing", f.actions)
		}
	}
	// A configuration that no longer makes an action would let the test pass without having seen it.
	want := strings.Fields(northdVerbs)
	slices.Sort(want)
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(verbs))); diff != "" {
		t.Errorf("verbs (-want +got):\n%s", diff)
	}
}

const northdVerbs = `
<-> = arp bind_vport check_in_port_sec check_out_port_sec check_pkt_larger chk_ecmp_nh chk_ecmp_nh_mac chk_lb_aff
chk_lb_hairpin chk_lb_hairpin_reply clone commit_ecmp_nh commit_lb_aff ct_clear ct_commit ct_commit_nat ct_dnat
ct_dnat_in_czone ct_lb ct_lb_mark ct_next ct_snat ct_snat_in_czone ct_snat_to_vip dns_lookup drop fwd_group get_arp
get_fdb get_nd handle_bfd_msg handle_dhcpv6_reply handle_svc_check icmp4 icmp4.frag_mtu icmp4_error icmp6
icmp6.frag_mtu icmp6_error igmp ip.ttl-- log lookup_arp lookup_arp_ip lookup_fdb lookup_nd lookup_nd_ip nd_na
nd_na_router nd_ns next output pop push put_arp put_dhcp_opts put_dhcpv6_opts put_fdb put_nd put_nd_ra_opts reject sample
sctp_abort select set_meter set_queue tcp_reset trigger_event
`
