package ledger

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/pkg/dpctl"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/probe/result"
	"github.com/offloadd/offloadd/pkg/specialize"
	"github.com/offloadd/offloadd/pkg/tc"
)

func flow(id uint32) Flow {
	return Flow{ID: id, Device: "v1", Proto: 17, Src: netip.MustParseAddrPort("10.0.0.1:7531"), Dst: netip.MustParseAddrPort("10.0.0.2:7531")}
}

func rule(chain uint32, pref uint16, m ir.Match, actions ...tc.Action) specialize.Filter {
	f := specialize.Filter{Kind: specialize.KindRule, Filter: tc.Filter{Chain: chain, Pref: pref, Handle: 1, Protocol: tc.ProtocolIPv4, Match: m, Actions: actions}}
	if chain == 0 {
		f.Kind, f.Indev = specialize.KindEntry, "v1"
	}
	return f
}

const chain = 0xe000000

// program asks the connection tracker, and then forwards UDP to 10.0.0.2; three rules are for others.
func program() []specialize.Filter {
	const established = 0x22
	zone := func(n uint64) ir.Match {
		return ir.Match{}.Eq(ir.IPProto, 17).Eq(ir.IPDst, 0x0a000002).Masked(ir.CTState, established, established).Eq(ir.CTZone, n)
	}
	return []specialize.Filter{
		{Kind: specialize.KindGuard, Filter: tc.Filter{Pref: 10, Handle: 1, Protocol: tc.ProtocolIPv4, Match: ir.Match{}.Masked(ir.IPFrag, 1, 1), Actions: []tc.Action{tc.Pass{}}}},
		rule(0, 100, ir.Match{}.Eq(ir.IPSrc, 0x0a000009), tc.Drop{}),
		rule(0, 102, ir.Match{}.Masked(ir.IPSrc, 0x0a000000, 0xffffff00).Eq(ir.EthDst, 0x505400000002), tc.CT{Zone: 5}, tc.Goto{Chain: chain}),
		rule(chain, specialize.PrefEnd, nil, tc.CT{Clear: true}, tc.Pass{}), // states share chains, so an end is not always last
		rule(chain, 100, zone(5), tc.Mirred{Ifindex: 12}),
		rule(chain, 100, zone(6), tc.Mirred{Ifindex: 13}),
		rule(chain, 101, ir.Match{}.Eq(ir.IPProto, 6), tc.Drop{}),
	}
}

func TestFilters(t *testing.T) {
	filters, err := Filters(program(), []Flow{flow(7)})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, f := range filters {
		if id, ok := specialize.ProbeFlow(f.Cookie); !ok || id != 7 {
			t.Errorf("%v is of flow %d, %v", f, id, ok)
		}
		f.Cookie = tc.Cookie{}
		got = append(got, f.String())
	}
	const tuple = "ip_proto udp dst_ip 10.0.0.2 src_ip 10.0.0.1 dst_port 7531 src_port 7531"
	want := []string{
		"chain 0 pref 20 handle 0x1 protocol ip flower indev v1 dst_mac 50:54:00:00:00:02 " + tuple + " action ct zone 5 pipe action goto chain 234881024",
		"chain 0 pref 22 handle 0x1 protocol ip flower indev v1 " + tuple + " action pass",
		"chain 234881024 pref 20 handle 0x1 protocol ip flower " + tuple + " ct_state +trk+est ct_zone 5 action mirred egress redirect dev if12",
		"chain 234881024 pref 22 handle 0x1 protocol ip flower " + tuple + " action ct clear pipe action pass",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	// Of packets with the Ethernet address that the rule asks for none is left, and of others none comes to the chain.
	for mac, want := range map[string]int{"\x50\x54\x00\x00\x00\x02": 3, "\x50\x54\x00\x00\x00\x03": 1} {
		f := flow(7)
		f.DstMAC = []byte(mac)
		if filters, err := Filters(program(), []Flow{f}); err != nil || len(filters) != want {
			t.Errorf("to %v there are %d filters, %v: want %d", f.DstMAC, len(filters), err, want)
		}
	}
	punt := flow(8)
	punt.Punt = true
	filters, err = Filters(program(), []Flow{punt})
	if err != nil || len(filters) != 1 || filters[0].Pref != specialize.PrefProbe || filters[0].Reason != specialize.Probed {
		t.Errorf("punted: %v, %v", filters, err)
	}
	later := flow(9)
	later.Device, later.Await = "v2", true
	if filters, err := Filters(program(), []Flow{later, flow(7)}); err != nil || len(filters) != 4 {
		t.Errorf("with one that awaits its device: %v, %v", filters, err)
	}
}

func TestFiltersRefuse(t *testing.T) {
	many := program()
	for i := range uint16(60) {
		many = append(many, rule(chain, 200+i, ir.Match{}.Eq(ir.CTMark, uint64(i)), tc.Drop{}))
	}
	deep := program()
	for i := range uint32(maxChains + 1) {
		deep = append(deep, rule(chain+i, 300, nil, tc.Goto{Chain: chain + i + 1}))
	}
	other, mixed, noPort := flow(1), flow(1), flow(1)
	other.Device = "v9"
	mixed.Dst = netip.MustParseAddrPort("[fd00::1]:1")
	noPort.Src = netip.MustParseAddrPort("10.0.0.1:0")
	for _, tt := range []struct {
		all  []specialize.Filter
		flow Flow
		want string
	}{
		{many, flow(1), "more than 40 prefs in chain 234881024"},
		{deep, flow(1), "more than 64 chains"},
		{program(), other, "no filters for device v9"},
		{program(), mixed, "not two addresses of one family"},
		{program(), noPort, "a port is not said"},
		{program(), Flow{}, "no number"},
	} {
		if _, err := Filters(tt.all, []Flow{tt.flow}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%v, want %q", err, tt.want)
		}
	}
}

// installed is what a kernel says of the filters, with what each has counted: of all, and of those in hardware.
func installed(t *testing.T, flows []Flow, counts ...[2]uint64) []*tc.Installed {
	t.Helper()
	filters, err := Filters(program(), flows)
	if err != nil || len(filters) != len(counts) {
		t.Fatalf("%d filters, %v", len(filters), err)
	}
	var all []*tc.Installed
	for i, f := range filters {
		all = append(all, &tc.Installed{Filter: f.Filter, Actions: []tc.ActionState{{Packets: counts[i][0], HWPackets: counts[i][1]}}})
	}
	return all
}

// A packet that hardware leaves to Open vSwitch where it comes in is counted by software too; one that hardware cannot finish goes on where it has ended.
func TestPost(t *testing.T) {
	none := Read(installed(t, []Flow{flow(7)}, [2]uint64{}, [2]uint64{}, [2]uint64{}, [2]uint64{}))[7]
	for _, tt := range []struct {
		name   string
		counts [4][2]uint64
		sent   uint64
		want   result.Account
	}{
		{"software", [4][2]uint64{{100, 0}, {0, 0}, {98, 0}, {2, 0}}, 100, result.Account{Sent: 100, Software: 98, OVS: 2, Filters: 4}},
		{"hardware", [4][2]uint64{{100, 100}, {0, 0}, {98, 98}, {2, 0}}, 100, result.Account{Sent: 100, Hardware: 98, OVS: 2, Filters: 4}},
		{"hardware goes on in software", [4][2]uint64{{100, 100}, {0, 0}, {98, 95}, {2, 0}}, 100, result.Account{Sent: 100, Hardware: 95, Software: 3, OVS: 2, Filters: 4}},
		{"hardware passes", [4][2]uint64{{0, 0}, {20, 10}, {0, 0}, {0, 0}}, 10, result.Account{Sent: 10, OVS: 10, Filters: 4}},
		{"lost before", [4][2]uint64{{90, 0}, {0, 0}, {90, 0}, {0, 0}}, 100, result.Account{Sent: 100, Software: 90, Unexplained: 10, Filters: 4}},
	} {
		after := Read(installed(t, []Flow{flow(7)}, tt.counts[:]...))[7]
		d, ok := after.Since(none)
		if !ok {
			t.Errorf("%s: filters have changed", tt.name)
		}
		var a result.Account
		Post(&a, tt.sent, d)
		if diff := cmp.Diff(tt.want, a); diff != "" {
			t.Errorf("%s: -want +got\n%s", tt.name, diff)
		}
		if arrived := tt.sent - uint64(a.Unexplained); d.Arrived() != arrived {
			t.Errorf("%s: %d arrived, want %d", tt.name, d.Arrived(), arrived)
		}
		if _, ok := none.Since(after); ok {
			t.Errorf("%s: counting backwards is not noticed", tt.name)
		}
	}
	fewer := none
	fewer.Filters--
	if _, ok := fewer.Since(none); ok {
		t.Error("a filter that is gone is not noticed")
	}
}

func TestPostDatapath(t *testing.T) {
	for _, tt := range []struct {
		left            []uint64
		counted, missed uint64
		want            []result.Account
	}{
		{[]uint64{10, 0}, 8, 2, []result.Account{{Datapath: 8, Upcalls: 2}, {}}},
		{[]uint64{10, 5}, 13, 9, []result.Account{{Datapath: 8, Upcalls: 2}, {Datapath: 5}}},
		{[]uint64{3, 5}, 2, 7, []result.Account{{Upcalls: 3}, {Datapath: 2, Upcalls: 3}}},
		{[]uint64{10}, 8, 1, []result.Account{{Datapath: 8, Upcalls: 1, Lost: 1}}},
		{[]uint64{10}, 500, 0, []result.Account{{Datapath: 10}}}, // others have the same flows
	} {
		got := make([]result.Account, len(tt.left))
		var accounts []*result.Account
		for i := range got {
			accounts = append(accounts, &got[i])
		}
		PostDatapath(accounts, tt.left, tt.counted, tt.missed)
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%v, %d, %d: -want +got\n%s", tt.left, tt.counted, tt.missed, diff)
		}
	}
}

// A claim is refused as soon as the counters do not say so.
func TestRefuse(t *testing.T) {
	for _, tt := range []struct {
		claim Claim
		a     result.Account
		want  string // "": it is believed
	}{
		{ByHardware, result.Account{Sent: 1000, Hardware: 999, OVS: 1, Datapath: 1}, ""},
		{ByHardware, result.Account{Sent: 1000, Hardware: 998, Software: 2}, "the hardware has forwarded 998 (99.80 %)"},
		{ByFilters, result.Account{Sent: 1000, Hardware: 998, Software: 2}, ""},
		{ByFilters, result.Account{Sent: 1000, Software: 998, OVS: 2}, "filters have forwarded 998 (99.80 %)"},
		{ByFilters, result.Account{Sent: 1000, Software: 999, Unexplained: 1}, "1 were counted by nothing"},
		{ByFilters, result.Account{Sent: 1000, Software: 1001, Unexplained: -1}, "-1 were counted by nothing"},
		{ByFilters, result.Account{Sent: 1000, Software: 1000, Changed: 2}, "have changed 2 times"},
		{ByFilters, result.Account{}, "no packets were sent"},
		{ByOVS, result.Account{Sent: 1000, OVS: 1000, Datapath: 997, Upcalls: 3}, ""},
		{ByOVS, result.Account{Sent: 1000, OVS: 999, Software: 1, Datapath: 999}, "filters have forwarded 1 (0.10 %)"},
		{ByOVS, result.Account{Sent: 1000, OVS: 1000, Datapath: 990, Lost: 10}, "has neither counted nor sent up 10"},
		{ByOVS, result.Account{Sent: 1000, OVS: 900, Dropped: 100, Datapath: 900}, "Open vSwitch has had 900"},
	} {
		got := Refuse(tt.claim, &tt.a)
		if (tt.want == "") != (got == "") || !strings.Contains(got, tt.want) {
			t.Errorf("%s of %+v: %q, want %q", tt.claim, tt.a, got, tt.want)
		}
	}
}

// Software is seen at once, hardware by how many packets it has forwarded in the end.
func TestSwitchOf(t *testing.T) {
	sent := []int64{0, 10, 20, 30}
	soft := func(n ...uint64) (all []Counts) {
		for _, n := range n {
			all = append(all, Counts{Forwarded: Split{Software: n}})
		}
		return all
	}
	for _, tt := range []struct {
		hardware int64
		seen     []Counts
		want     result.Switch
	}{
		{0, soft(0, 0, 0, 0), result.Switch{}},
		{0, soft(0, 0, 1, 2), result.Switch{Packet: 3, After: 20}},
		{1, soft(0, 0, 1, 1), result.Switch{Packet: 3, After: 20, Hardware: 4, HardwareAfter: 30}},
		{3, soft(0, 0, 0, 0), result.Switch{Packet: 2, After: 10, Hardware: 2, HardwareAfter: 10}},
		{9, soft(0, 0, 0, 0), result.Switch{Packet: 1, Hardware: 1}},
	} {
		if got := SwitchOf(&result.Account{Hardware: tt.hardware}, tt.seen, sent); got != tt.want {
			t.Errorf("%d by hardware, %v: %+v, want %+v", tt.hardware, tt.seen, got, tt.want)
		}
	}
}

// Only flows that a packet of the tuple meets where it comes in count, whatever else they let through.
func TestMegaflows(t *testing.T) {
	const head = ",packet_type(ns=0,id=0),eth(src=50:54:00:00:00:01),"
	text := strings.Join([]string{
		"ufid:00000000-0000-0000-0000-000000000001, recirc_id(0),in_port(v1)" + head + "eth_type(0x0800),ipv4(src=10.0.0.0/255.255.255.0,proto=17,frag=no),udp(src=0/0,dst=0/0), packets:70, bytes:1, used:0.1s, dp:ovs, actions:ct(zone=5),recirc(0x1)",
		"ufid:00000000-0000-0000-0000-000000000002, recirc_id(0x1),in_port(v1)" + head + "eth_type(0x0800),ipv4(src=10.0.0.1), packets:99, bytes:1, used:0.1s, dp:ovs, actions:v2",
		"ufid:00000000-0000-0000-0000-000000000003, recirc_id(0),in_port(v1)" + head + "eth_type(0x0800),ipv4(src=10.0.1.1), packets:99, bytes:1, used:0.1s, dp:ovs, actions:v2",
		"ufid:00000000-0000-0000-0000-000000000004, recirc_id(0),in_port(v2)" + head + "eth_type(0x0800),ipv4(src=10.0.0.1), packets:99, bytes:1, used:0.1s, dp:ovs, actions:v2",
		"ufid:00000000-0000-0000-0000-000000000005, recirc_id(0),in_port(v1)" + head + "eth_type(0x0800),ipv4(src=10.0.0.1,proto=17),udp(dst=53), packets:99, bytes:1, used:0.1s, dp:ovs, actions:v2",
		"ufid:00000000-0000-0000-0000-000000000006, recirc_id(0),in_port(v1)" + head + "eth_type(0x0800),ipv4(src=10.0.0.1,proto=17),udp(src=7531), packets:5, bytes:1, used:0.1s, dp:ovs, actions:v2",
	}, "\n")
	all, err := dpctl.Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	got := Megaflows(all, "v1", []Flow{flow(1)})
	id := func(n int) string { return fmt.Sprintf("%032d", n) }
	if diff := cmp.Diff(map[string]uint64{id(1): 70, id(6): 5}, got); diff != "" {
		t.Errorf("-want +got\n%s", diff)
	}
	before := map[string]uint64{id(1): 50, id(9): 1000}
	if n := Counted(before, got); n != 25 {
		t.Errorf("counted %d, want 25: a flow that has ended counts no more", n)
	}
}
