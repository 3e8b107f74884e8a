package simnic_test

import (
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/offloadd/offloadd/integration/simnic"
)

const block = "3869"

// shared makes two VFs, and gives their representors, the uplink and a Geneve device one block of filters.
func shared(t *testing.T, d simnic.Device) {
	t.Helper()
	switchdev(t, d)
	check(t, d.SetVFs(2))
	run(t, words("ip link add gnv0 type geneve external")...)
	t.Cleanup(func() { run(t, words("ip link del gnv0")...) })
	for _, dev := range []string{d.VFRepresentor(0), d.VFRepresentor(1), d.Uplink(), "gnv0"} {
		run(t, words("ip link set %s up", dev)...)
		run(t, words("tc qdisc add dev %s ingress_block %s clsact", dev, block)...)
	}
}

// add adds a filter to the block with a pref of its own, and returns what tc said, which includes the driver's reasons.
func add(t *testing.T, pref int, chain int, protocol, match, actions string) string {
	t.Helper()
	return run(t, words("tc filter add block %s protocol %s pref %d chain %d flower verbose %s %s", block, protocol, pref, chain, match, actions)...)
}

// inHW returns how many devices a filter is in hardware for. tc says not_in_hw of a filter that never was; of one that lost it it
// says nothing.
func inHW(t *testing.T, pref, chain int) int {
	t.Helper()
	out := run(t, words("tc filter show block %s pref %d chain %d", block, pref, chain)...)
	if !strings.Contains(out, "handle 0x") {
		t.Fatalf("no filter of pref %d in chain %d:\n%s", pref, chain, out)
	}
	m := inHWCount.FindStringSubmatch(out)
	if m == nil {
		return 0
	}
	n, err := strconv.Atoi(m[1])
	check(t, err)
	return n
}

var inHWCount = regexp.MustCompile(`in_hw_count (\d+)`)

// The hardware takes what mlx5 takes, and says what it says of the rest.
func TestSimnicFilters(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	shared(t, d)
	vf, other, uplink := d.VFRepresentor(0), d.VFRepresentor(1), d.Uplink()
	run(t, words("ip link add foreign type dummy")...)
	t.Cleanup(func() { run(t, words("ip link del foreign")...) })
	const geneve = "enc_key_id 5 enc_src_ip 192.0.2.1 enc_dst_ip 192.0.2.2 enc_dst_port 6081"
	for i, tt := range []struct {
		name                     string
		protocol, match, actions string
		inHW                     int    // how many of the block's devices
		says                     string // by those that refuse
	}{
		{"redirect", "ip", "dst_ip 10.0.0.2", "action mirred egress redirect dev " + other, 2, "can't forward from a VF to itself"},
		{"from one device", "ip", "indev " + vf + " dst_ip 10.0.0.2", "action mirred egress redirect dev " + other, 1, "Can't match on the ingress filter port"},
		{"from a tunnel", "ip", "indev gnv0 " + geneve + " geneve_opts 0102:80:00010002", "action tunnel_key unset pipe action mirred egress redirect dev " + vf, 1, "Can't match"},
		{
			"into a tunnel", "ip", "indev " + vf + " dst_ip 10.0.0.3",
			"action tunnel_key set id 5 src_ip 192.0.2.2 dst_ip 192.0.2.1 dst_port 6081 geneve_opts 0102:80:00010002 pipe action mirred egress redirect dev gnv0", 1, "Can't match",
		},
		{"ct", "ip", "indev " + vf + " ct_state -trk", "action ct zone 7 pipe action goto chain 1", 1, "Can't match"},
		{"two cts", "ip", "indev " + vf, "action ct zone 7 pipe action ct zone 8 pipe action goto chain 1", 0, "Multiple CT actions are not supported"},
		{"new", "ip", "indev " + vf + " ct_state +trk+new", "action pass", 0, "matching on ct_state +new isn't supported"},
		{"related", "ip", "indev " + vf + " ct_state +trk+rel", "action pass", 0, "matching on ct_state +rel isn't supported"},
		{"established", "ip", "indev " + vf + " ct_state +trk+est ct_mark 0x0/0x1", "action mirred egress redirect dev " + other, 1, "Can't match"},
		{"itself", "ip", "indev " + vf, "action mirred egress redirect dev " + vf, 0, "can't forward from a VF to itself"},
		{"somebody else", "ip", "indev " + vf, "action mirred egress redirect dev foreign", 0, "devices are not on same switch HW"},
		{"mark", "ip", "indev " + vf, "action skbedit mark 1 pipe action mirred egress redirect dev " + other, 0, "Not implemented offload action"},
		{"ports of UDP", "ip", "indev " + vf + " ip_proto udp dst_port 53", "action drop", 1, "Can't match"},
		{"ports of SCTP", "ip", "indev " + vf + " ip_proto sctp dst_port 53", "action drop", 0, "Only UDP and TCP transports are supported"},
		{"a range of ports", "ip", "indev " + vf + " ip_proto udp dst_port 53-55", "action drop", 0, "Unsupported key"},
		{"ARP", "arp", "indev " + vf + " arp_tip 10.0.0.1", "action drop", 0, "Unsupported key"},
		{"later fragments", "ip", "indev " + vf + " ip_flags nofirstfrag", "action drop", 0, "Match on frag first/later is not supported"},
		{"routed", "ip", "indev " + vf + " dst_ip 10.0.0.4", "action pedit ex munge eth dst set 02:00:00:00:00:01 munge ip ttl add 255 pipe action csum ip4h pipe action mirred egress redirect dev " + other, 1, "Can't match"},
		{"address of any protocol", "ip", "indev " + vf + " dst_ip 10.0.0.4", "action pedit ex munge ip dst set 10.0.0.5 pipe action csum ip4h pipe action mirred egress redirect dev " + other, 0, "can't offload re-write of non TCP/UDP"},
		{"address of TCP", "ip", "indev " + vf + " ip_proto tcp dst_ip 10.0.0.4", "action pedit ex munge ip dst set 10.0.0.5 pipe action csum ip4h and tcp pipe action mirred egress redirect dev " + other, 1, "Can't match"},
		{"protocol", "ip", "indev " + vf + " ip_proto tcp", "action pedit ex munge ip protocol set 17 pipe action csum ip4h pipe action mirred egress redirect dev " + other, 0, "attempt to offload an unsupported field"},
		{"address and ct", "ip", "indev " + vf + " ip_proto tcp", "action ct zone 7 pipe action pedit ex munge ip dst set 10.0.0.5 pipe action csum ip4h and tcp pipe action goto chain 1", 0, "can't offload re-write of ipv4 address with action ct"},
		{"drop after a rewrite", "ip", "indev " + vf, "action pedit ex munge eth dst set 02:00:00:00:00:01 pipe action drop", 0, "Drop with modify header action is not supported"},
		{"checksum alone", "ip", "indev " + vf, "action csum ip4h pipe action pass", 0, "TC csum action is only offloaded with pedit"},
		{"trap among others", "ip", "indev " + vf, "action mirred egress mirror dev " + other + " pipe action trap", 0, "action trap is supported as a sole action only"},
		{"twice to one", "ip", "indev " + vf, "action mirred egress mirror dev " + uplink + " pipe action mirred egress redirect dev " + uplink, 0, "can't duplicate output to same device"},
	} {
		pref := i + 1
		said := add(t, pref, 0, tt.protocol, tt.match, tt.actions)
		if got := inHW(t, pref, 0); got != tt.inHW || !strings.Contains(said, tt.says) {
			t.Errorf("%s: in hardware for %d devices, and %q; want %d, and %q", tt.name, got, said, tt.inHW, tt.says)
		}
	}

	// What is said last is all that is heard of a block's devices: these are on a device of their own.
	run(t, words("ip link add gnv1 type geneve external dstport 6082")...)
	t.Cleanup(func() { run(t, words("ip link del gnv1")...) })
	run(t, words("tc qdisc add dev gnv1 clsact")...)
	for i, tt := range []struct{ match, actions, says string }{
		{"dst_ip 10.0.0.2", "action mirred egress redirect dev " + vf, "must include enc_dst_port"},
		{"enc_key_id 5 enc_dst_port 6082", "action goto chain 5", "not registered as a GENEVE port"},
		{geneve + " geneve_opts 0102:80:00000000", "action goto chain 5", "can't match on 0 data field"},
		{geneve + " geneve_opts 0103:80:00010002", "action goto chain 5", "failed creating TLV opt object"},
		{geneve, "action tunnel_key unset pipe action goto chain 5", "Decap with goto isn't supported"},
	} {
		said := run(t, words("tc filter add dev gnv1 ingress protocol ip pref %d flower verbose %s %s", i+1, tt.match, tt.actions)...)
		if !strings.Contains(said, tt.says) {
			t.Errorf("%s %s: %q, want %q", tt.match, tt.actions, said, tt.says)
		}
	}

	before, err := d.Rules()
	check(t, err)
	if len(before) == 0 || before[0].Device != "gnv0" || before[0].Pref != 3 {
		t.Errorf("Rules = %+v, want that of gnv0 with pref 3 first", before)
	}
	// With hw-tc-offload off nothing is taken; it stays on while there are filters.
	wantError(t, "Could not change", words("ethtool -K %s hw-tc-offload off", vf)...)
	run(t, words("ethtool -K %s hw-tc-offload on", vf)...) // what was wanted is remembered, and not tried again
	run(t, words("tc qdisc del dev %s clsact", vf)...)
	run(t, words("ethtool -K %s hw-tc-offload off", vf)...)
	after, err := d.Rules()
	check(t, err)
	for _, r := range after {
		if r.Device == vf {
			t.Errorf("%s has left the block, and the rule %+v stays", vf, r)
		}
	}
	// A device that comes to the block later gets all filters of it.
	run(t, words("ethtool -K %s hw-tc-offload on", vf)...)
	run(t, words("tc qdisc add dev %s ingress_block %s clsact", vf, block)...)
	if again, err := d.Rules(); err != nil || len(again) != len(before) {
		t.Errorf("%d rules after a device came back, %v; want %d as before", len(again), err, len(before))
	}
}

// Each fault of filters once.
func TestSimnicFilterFaults(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	shared(t, d)
	vf, other := d.VFRepresentor(0), d.VFRepresentor(1)
	pref := 0
	drop := func(match string) int {
		t.Helper()
		pref++
		add(t, pref, 0, "ip", match, "action drop")
		return inHW(t, pref, 0)
	}
	toOther := func(match string) int {
		t.Helper()
		pref++
		add(t, pref, 0, "ip", "indev "+vf+" "+match, "action mirred egress redirect dev "+other)
		return inHW(t, pref, 0)
	}
	want := func(what string, got, want int) {
		t.Helper()
		if got != want {
			t.Errorf("%s: in hardware for %d devices, want %d", what, got, want)
		}
	}
	const all = 3 // but the tunnel device, whose filters must match on the tunnel
	want("nothing wrong", drop("dst_ip 10.0.0.1"), all)

	check(t, d.Set(simnic.RefuseNth, 2))
	want("second refused", drop("dst_ip 10.0.0.1"), all-1)
	want("nothing more refused", drop("dst_ip 10.0.0.1"), all)

	check(t, d.RefuseKeys("ipv4", "ct"))
	want("key refused", drop("dst_ip 10.0.0.1"), 0)
	want("another key", drop("ip_proto udp dst_port 1"), all)
	check(t, d.RefuseKeys())
	want("no key refused", drop("dst_ip 10.0.0.1"), all)
	if err := d.RefuseKeys("nonsense"); err == nil {
		t.Error(`RefuseKeys("nonsense") = nil, want an error`)
	}

	check(t, d.RefuseActions("redirect"))
	want("action refused", toOther("dst_ip 10.0.0.1"), 0)
	want("another action", drop("dst_ip 10.0.0.1"), all)
	check(t, d.RefuseActions())
	want("no action refused", toOther("dst_ip 10.0.0.1"), 1)

	check(t, d.Set(simnic.CT, 0))
	want("ct without connection tracking", toOther("ct_state +trk+est"), 0)
	check(t, d.Set(simnic.CT, 1))
	want("ct", toOther("ct_state +trk+est"), 1)
	check(t, d.Set(simnic.CTNew, 1))
	want("new, where it can be matched on", toOther("ct_state +trk+new"), 1)
	check(t, d.Set(simnic.TTL, 0))
	want("TTL, where it cannot be matched on", toOther("ip_ttl 64"), 0)
	check(t, d.Set(simnic.AcceptAll, 1))
	want("anything goes", toOther("ip_ttl 64 ct_state +trk+rel"), all+1)
	check(t, d.Set(simnic.AcceptAll, 0))

	check(t, d.Set(simnic.MaxChain, 3))
	add(t, 1, 4, "ip", "indev "+vf, "action drop")
	want("a chain too high", inHW(t, 1, 4), 0)
	add(t, 1, 3, "ip", "indev "+vf, "action drop")
	want("the highest chain", inHW(t, 1, 3), 1)

	rules, err := d.Rules()
	check(t, err)
	check(t, d.Set(simnic.MaxRules, len(rules)+1))
	want("room for one", drop("dst_ip 10.0.0.1"), 1)
	check(t, d.Set(simnic.MaxRules, 0))

	check(t, d.Set(simnic.Delay, 300))
	start := time.Now()
	want("slow", drop("dst_ip 10.0.0.1"), all)
	if took := time.Since(start); took < all*300*time.Millisecond {
		t.Errorf("a filter for %d devices that takes 300 ms each took %v", all, took)
	}
	check(t, d.Set(simnic.Delay, 0))

	// Counters are the hardware's, of each device; what it has lost does not count.
	check(t, d.Count(5))
	show := words("tc -s filter show block %s pref 1", block)
	wantWords(t, "counters", run(t, show...), "Sent hardware 1500 bytes 15 pkt")
	check(t, d.Forget())
	check(t, d.Count(5))
	wantWords(t, "counters of what was forgotten", run(t, show...), "Sent hardware 1500 bytes 15 pkt")
	want("forgotten by the hardware", inHW(t, 1, 0), all)
	rules, err = d.Rules()
	check(t, err)
	for _, r := range rules {
		if !r.Forgotten {
			t.Errorf("rule %+v is not forgotten", r)
		}
	}

	// Filters of tunnel devices lose in_hw, and later ones have it again.
	tunnel := func() int {
		t.Helper()
		pref++
		add(t, pref, 0, "ip", "indev gnv0 enc_key_id 5 enc_dst_port 6081", "action mirred egress redirect dev "+vf)
		return inHW(t, pref, 0)
	}
	want("from a tunnel", tunnel(), 1)
	check(t, d.Set(simnic.Tunnels, 0))
	want("from a tunnel that the NIC has let go", inHW(t, pref, 0), 0)
	want("from a tunnel, without tunnels", tunnel(), 0)
	check(t, d.Set(simnic.Tunnels, 1))
	want("from a tunnel again", tunnel(), 1)

	// A reset takes representors out of the block: a filter of two of them is in hardware for the uplink alone.
	check(t, d.Reset())
	want("after a reset", inHW(t, 1, 0), 1)
}

// Packets take TC's software path, and filters that are in hardware alone get none: what the README says of them.
func TestSimnicSoftware(t *testing.T) {
	load(t)
	const d = simnic.Device(0)
	switchdev(t, d)
	check(t, d.SetVFs(2))
	space(t, "a", "sn0v0", "10.0.0.1/24")
	space(t, "b", "sn0v1", "10.0.0.2/24")
	redirect(t, d.VFRepresentor(0), d.VFRepresentor(1), "")
	ping(t, "a", "10.0.0.2")

	// A filter that must be in hardware is an error if it cannot be, and gets no packet.
	skipSW := "tc filter add dev %s ingress protocol ip pref %d flower skip_sw action mirred egress redirect dev %s"
	run(t, words("tc filter del dev %s ingress", d.VFRepresentor(1))...)
	wantError(t, "can't forward from a VF to itself", words(skipSW, d.VFRepresentor(1), 1, d.VFRepresentor(1))...)
	run(t, words(skipSW, d.VFRepresentor(1), 1, d.VFRepresentor(0))...)
	wantError(t, "100% packet loss", words("ip netns exec a ping -n -c 1 -W 1 10.0.0.2")...)

	out := run(t, words("tc -s filter show dev %s ingress", d.VFRepresentor(0))...)
	if !strings.Contains(out, "in_hw_count 1") || !regexp.MustCompile(`Sent \d+ bytes [1-9]`).MatchString(out) || strings.Contains(out, "hardware") {
		t.Errorf("the filter is not in hardware, or packets were not counted in software alone:\n%s", out)
	}
}
