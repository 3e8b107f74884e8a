package parity

import (
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// one and two are the same bridge as two agents might have set it up: ports, zones, groups, meters, conjunctions,
// their dimensions and the tun_metadata field have other numbers, flows and outputs another order.
var (
	one = Dump{
		Flows: `
 cookie=0x7a11431f, priority=100,in_port=1 actions=set_field:0x3->reg13,set_field:0x1->reg11,set_field:0x2->reg12,set_field:0x1->metadata,set_field:0x1->reg14,resubmit(,8)
 priority=100,in_port=2 actions=move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23],move:NXM_NX_TUN_METADATA0[16..30]->NXM_NX_REG14[0..14],resubmit(,40)
 priority=0 actions=drop
 cookie=0x3e4e6096, table=16, priority=2000,conj_id=11,tcp,reg0=0x80/0x80,metadata=0x1 actions=resubmit(,17)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_src=10.0.0.1 actions=conjunction(11,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_src=10.0.0.2 actions=conjunction(11,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,tp_dst=80 actions=conjunction(11,2/2),conjunction(12,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,tp_dst=81 actions=conjunction(11,2/2),conjunction(12,1/2)
 cookie=0x6880ab5e, table=16, priority=2000,conj_id=12,tcp,reg0=0x80/0x80,metadata=0x1 actions=drop
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_dst=10.0.0.0/24 actions=conjunction(12,2/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_dst=10.0.1.0/24 actions=conjunction(12,2/2)
 cookie=0xa8960e78, table=20, priority=120,ct_state=+new+trk,tcp,metadata=0x1,nw_dst=10.0.0.100,tp_dst=80 actions=group:5
 cookie=0x11111111, table=30, priority=1,ip,metadata=0x1 actions=controller(userdata=00.00.00.07,meter_id=4),meter:4,resubmit(,31)
 cookie=0x22222222, table=31, idle_timeout=20, priority=1,ip,metadata=0x1 actions=clone(output:2,output:3,output:1),bundle(eth_src,0,active_backup,ofport,members:3,2)
 cookie=0x26cbb971, table=39, priority=100,reg15=0x8000,metadata=0x1 actions=set_field:0x1/0xffffff->tun_id,set_field:0x8000->tun_metadata0,output:2,output:3,resubmit(,40)
`,
		Groups: `OFPST_GROUP_DESC reply (OF1.5) (xid=0x2):
 group_id=5,type=select,selection_method=dp_hash,bucket=bucket_id:0,weight:100,actions=ct(commit,table=21,zone=NXM_NX_REG13[0..15],nat(dst=10.0.0.11:80),exec(set_field:0x2/0x2->ct_mark))
`,
		Meters: `OFPST_METER_CONFIG reply (OF1.5) (xid=0x2):
meter=4 kbps burst stats bands=
type=drop rate=1000 burst_size=10
`,
		TLVs: "  class  type  length  match field\n  0x102  0x80       4  tun_metadata0\n",
		Ports: map[uint64]string{
			1: "lport p1", 2: "chassis-id hv2@1.1.1.2", 3: `chassis-id "odd, (name" group:5 output:1`,
		},
		Zones: map[uint64]string{1: "a_dnat", 2: "a_snat", 3: "p1"},
	}
	two = Dump{
		Flows: `OFPST_FLOW reply (OF1.5) (xid=0x2):
 priority=0 actions=drop
 cookie=0x6880ab5e, table=16, priority=2000,conj_id=1,tcp,reg0=0x80/0x80,metadata=0x1 actions=drop
 cookie=0x3e4e6096, table=16, priority=2000,conj_id=12,tcp,reg0=0x80/0x80,metadata=0x1 actions=resubmit(,17)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_dst=10.0.0.0/24 actions=conjunction(1,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_dst=10.0.1.0/24 actions=conjunction(1,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_src=10.0.0.1 actions=conjunction(12,2/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,nw_src=10.0.0.2 actions=conjunction(12,2/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,tp_dst=80 actions=conjunction(1,2/2),conjunction(12,1/2)
 table=16, priority=2000,tcp,reg0=0x80/0x80,metadata=0x1,tp_dst=81 actions=conjunction(12,1/2),conjunction(1,2/2)
 cookie=0x22222222, table=31, idle_timeout=20, priority=1,ip,metadata=0x1 actions=clone(output:8,output:7,output:9),bundle(eth_src,0,active_backup,ofport,members:8,7)
 cookie=0x26cbb971, table=39, priority=100,reg15=0x8000,metadata=0x1 actions=set_field:0x1/0xffffff->tun_id,set_field:0x8000->tun_metadata3,output:8,output:7,resubmit(,40)
 priority=100,in_port=7 actions=move:NXM_NX_TUN_ID[0..23]->OXM_OF_METADATA[0..23],move:NXM_NX_TUN_METADATA3[16..30]->NXM_NX_REG14[0..14],resubmit(,40)
 cookie=0xa8960e78, table=20, priority=120,ct_state=+new+trk,tcp,metadata=0x1,nw_dst=10.0.0.100,tp_dst=80 actions=group:1
 cookie=0x11111111, table=30, priority=1,ip,metadata=0x1 actions=controller(userdata=00.00.00.07,meter_id=1),meter:1,resubmit(,31)
 cookie=0x7a11431f, priority=100,in_port=9 actions=set_field:0x9->reg13,set_field:0x8->reg11,set_field:0x7->reg12,set_field:0x1->metadata,set_field:0x1->reg14,resubmit(,8)
`,
		Groups: " group_id=1,type=select,selection_method=dp_hash,bucket=bucket_id:0,weight:100,actions=ct(commit,table=21,zone=NXM_NX_REG13[0..15],nat(dst=10.0.0.11:80),exec(set_field:0x2/0x2->ct_mark))\n",
		Meters: "meter=1 kbps burst stats bands=\ntype=drop rate=1000 burst_size=10\n",
		TLVs:   "  0x102  0x80       4  tun_metadata3\n",
		Ports: map[uint64]string{
			9: "lport p1", 7: "chassis-id hv2@1.1.1.2", 8: `chassis-id "odd, (name" group:5 output:1`,
		},
		Zones: map[uint64]string{8: "a_dnat", 7: "a_snat", 9: "p1"},
	}
)

func normalise(t *testing.T, d Dump) Bridge {
	t.Helper()
	b, err := Normalise(d, false)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNumbersDoNotMatter(t *testing.T) {
	a, b := normalise(t, one), normalise(t, two)
	if diff := cmp.Diff(strings.Split(a.String(), "\n"), strings.Split(b.String(), "\n")); diff != "" {
		t.Errorf("normalised bridges differ (-one +two):\n%s", diff)
	}
	if r := Compare(a, b, Options{}); !r.Same() || r.Equal != 15 {
		t.Errorf("Compare = %d flows equal, same %t; want 15, true\n%s", r.Equal, r.Same(), r)
	}
}

// TestEveryNumberMatters changes each number of the dump in turn, wherever it is, and each line. Nothing may pass
// as equal, not even a number that is arbitrary: changed in one place only, it connects something else.
func TestEveryNumberMatters(t *testing.T) {
	number := regexp.MustCompile(`\d+`)
	want := normalise(t, two)
	texts := map[string]func(*Dump) *string{
		"flows":  func(d *Dump) *string { return &d.Flows },
		"groups": func(d *Dump) *string { return &d.Groups },
		"meters": func(d *Dump) *string { return &d.Meters },
		"tlvs":   func(d *Dump) *string { return &d.TLVs },
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			original, mutants := *text(&one), 0
			try := func(what, mutant string) {
				mutants++
				d := one
				*text(&d) = mutant
				b, err := Normalise(d, false)
				if err == nil && Compare(want, b, Options{}).Same() {
					t.Errorf("%s: passes as the same:\n%s", what, mutant)
				}
			}
			for _, span := range number.FindAllStringIndex(original, -1) {
				line := original[strings.LastIndex(original[:span[0]], "\n")+1:]
				if isReplyHeader(strings.TrimSpace(line)) {
					continue
				}
				// Another last digit; not one higher, which may be the other dimension's or zone's.
				digit := (original[span[1]-1] - '0' + 5) % 10
				try("digit changed", original[:span[1]-1]+strconv.Itoa(int(digit))+original[span[1]:])
			}
			lines := strings.SplitAfter(original, "\n")
			for i, line := range lines {
				if strings.TrimSpace(line) == "" || isReplyHeader(strings.TrimSpace(line)) || strings.Contains(line, "class") {
					continue
				}
				try("line removed", strings.Join(append(append([]string{}, lines[:i]...), lines[i+1:]...), ""))
				if name == "flows" {
					try("line repeated", strings.Join(append(append(append([]string{}, lines[:i]...), line), lines[i:]...), ""))
				}
			}
			t.Logf("%d mutants found out", mutants)
		})
	}
}

func TestParseFlow(t *testing.T) {
	tests := []struct {
		line string
		want Flow
	}{
		{" priority=0 actions=drop", Flow{Actions: "drop"}},
		{
			"table=99, idle_timeout=100, send_flow_rem importance=3, actions=drop",
			Flow{Table: 99, Priority: 32768, Extra: "idle_timeout=100, send_flow_rem, importance=3", Actions: "drop"},
		},
		{
			"cookie=0x10, table=99, send_flow_rem ip actions=clone(set_field:0x1->reg0,output:1)",
			Flow{Cookie: 16, Table: 99, Priority: 32768, Extra: "send_flow_rem", Match: "ip", Actions: "clone(set_field:0x1->reg0,output:1)"},
		},
		{
			"table=8, priority=100,metadata=0x1,vlan_tci=0x1000/0x1000 actions=learn(table=69,idle_timeout=3),drop",
			Flow{Table: 8, Priority: 100, Match: "metadata=0x1,vlan_tci=0x1000/0x1000", Actions: "learn(table=69,idle_timeout=3),drop"},
		},
	}
	for _, tt := range tests {
		got, err := ParseFlow(tt.line)
		if err != nil || got != tt.want {
			t.Errorf("ParseFlow(%q) = %+v, %v, want %+v", tt.line, got, err, tt.want)
		}
		if again, err := ParseFlow(got.String()); err != nil || again != got {
			t.Errorf("ParseFlow(%q) = %+v, %v, want %+v", got, again, err, got)
		}
	}
	for _, line := range []string{"", "table=1, priority=2", "table=x, actions=drop", "cookie=-1, actions=drop", "priority=1e3,ip actions=drop"} {
		if f, err := ParseFlow(line); err == nil {
			t.Errorf("ParseFlow(%q) = %+v, want an error", line, f)
		}
	}
}

func TestReport(t *testing.T) {
	lflows := []Lflow{
		{UUID: "0000000a-1", Stage: "ls_in_acl", Pipeline: "ingress", Table: 8, Priority: 5, Match: "tcp", Actions: "next;"},
		{UUID: "0000000b-1", Stage: "ls_in_acl", Pipeline: "ingress", Table: 8, Priority: 5, Match: "ip.proto == 6", Actions: "next;"},
		{UUID: "0000000c-1", Stage: "ls_in_acl", Pipeline: "ingress", Table: 8, Priority: 5, Match: "udp", Actions: `reg0 = 0; put_arp(inport, arp.spa, arp.sha);`},
		{UUID: "0000000d-1", Stage: "ls_in_acl", Pipeline: "ingress", Table: 8, Priority: 5, Match: "icmp", Actions: `sample(obs_point="put_arp(");`},
	}
	lflows = append(lflows, Lflow{UUID: "0000000e-1", Match: "ip4 && ip.dscp == 1"})
	reference := `
cookie=0xa, table=16, priority=5,tcp actions=resubmit(,17)
cookie=0xc, table=16, priority=5,conj_id=1,udp actions=controller(userdata=00)
table=16, priority=5,udp,tp_dst=1 actions=conjunction(1,1/2)
table=16, priority=5,udp,tp_dst=2 actions=conjunction(1,1/2),conjunction(2,1/2)
table=16, priority=5,udp,nw_src=1.1.1.1 actions=conjunction(1,2/2)
cookie=0xa, table=16, priority=5,conj_id=2,udp actions=drop
`
	tests := []struct {
		name, a, b, want string
	}{
		{
			"a tie and a verb that is out of scope", reference, `
cookie=0xb, table=16, priority=5,tcp actions=resubmit(,17)
table=16, priority=5,udp,tp_dst=2 actions=conjunction(7,1/2)
cookie=0xa, table=16, priority=5,conj_id=7,udp actions=drop`,
			`3 flows equal (1 of them attributed to another, interchangeable logical flow)
out of scope (put_arp): 3 flows
`,
		},
		{
			"out of scope excuses only what is missing", reference, reference + "cookie=0xc, table=17, priority=1 actions=drop",
			`6 flows equal
--- A
+++ B
table 17: 0 only in A, 1 only in B, 0 with the same match
+ cookie=0xc, table=17, priority=1 actions=drop
    # ls_in_acl ingress 8 5 (udp) (reg0 = 0; put_arp(inport, arp.spa, arp.sha);)
`,
		},
		{
			"a verb in a string is none", "cookie=0xd, priority=5,icmp actions=drop", "",
			`0 flows equal
--- A
+++ B
table 0: 1 only in A, 0 only in B, 0 with the same match
- cookie=0xd, table=0, priority=5,icmp actions=drop
    # ls_in_acl ingress 8 5 (icmp) (sample(obs_point="put_arp(");)
`,
		},
		{
			"a deviation, with its conjunction", `
cookie=0xe, priority=5,ip actions=drop
cookie=0xe, priority=6,conj_id=1,ip actions=drop
priority=6,ip,tp_dst=1 actions=conjunction(1,1/2),conjunction(2,1/2)
priority=6,ip,tp_dst=2 actions=conjunction(1,1/2)
priority=6,ip,tp_dst=3 actions=conjunction(2,1/2)
cookie=0xa, priority=6,conj_id=2,ip actions=drop`, `
cookie=0xe, priority=5,ip,nw_tos=4 actions=drop
priority=6,ip,tp_dst=1 actions=conjunction(2,1/2)
cookie=0xa, priority=6,conj_id=2,ip actions=drop`,
			`1 flows equal
deviation (ip.dscp): 5 flows
--- A
+++ B
table 0: 1 only in A, 0 only in B, 0 with the same match
- table=0, priority=6,ip,tp_dst=3 actions=conjunction(<a9b38a90>,1/2)
`,
		},
		{
			"same match", "cookie=0xa, priority=5,ip actions=drop\ncookie=0xa, priority=4,ip actions=drop", "cookie=0xa, priority=5,ip actions=resubmit(,1)\ncookie=0xb, priority=4,ip actions=drop",
			`1 flows equal (1 of them attributed to another, interchangeable logical flow)
--- A
+++ B
table 0: 0 only in A, 0 only in B, 1 with the same match
- cookie=0xa, table=0, priority=5,ip actions=drop
    # ls_in_acl ingress 8 5 (tcp) (next;)
+ cookie=0xa, table=0, priority=5,ip actions=resubmit(,1)
`,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, b := normalise(t, Dump{Flows: tt.a}), normalise(t, Dump{Flows: tt.b})
			got := Compare(a, b, Options{Lflows: lflows, OutOfScope: OutOfScope(), Deviations: Deviations()}).String()
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("report (-want +got):\n%s", diff)
			}
		})
	}
}

// TestDeviations says which matches and actions each deviation covers, so that none forgives more than it should.
func TestDeviations(t *testing.T) {
	for match, want := range map[string]string{
		"ip4 && ip.dscp == 46":       "ip.dscp",
		"!ip.is_frag":                "negated fragment",
		"ip4 && ! ip.later_frag":     "negated fragment",
		"ip.is_frag && ip4":          "",
		"!vlan.present":              "",
		`inport == "tip.dscpx" && 1`: "",
	} {
		if got := deviationIn(match, "next;", Deviations()); got != want {
			t.Errorf("deviationIn(%q, next;) = %q, want %q", match, got, want)
		}
	}
	for actions, want := range map[string]string{
		"log(verdict=reject, severity=info); ct_commit { ct_mark.blocked = 1; };  reg0 = 0; reject { drop; };": "late commit",
		"ct_commit { ct_mark.blocked = 1; }; log(verdict=drop, severity=info); /* drop */":                     "",
		"reg0 = 1; ct_commit_nat;": "",
	} {
		if got := deviationIn("ip4", actions, Deviations()); got != want {
			t.Errorf("deviationIn(ip4, %s) = %q, want %q", actions, got, want)
		}
	}
}

func TestSortOutputs(t *testing.T) {
	for in, want := range map[string]string{
		"output:2,output:1":               "output:1,output:2",
		"a,output:2,b,output:1":           "a,output:2,b,output:1",
		"set:2->tun_id,output:3,output:2": "set:2->tun_id,output:2,output:3",
		"x,set:2->tun_id,output:3,set:1->tun_id,move:NXM_TUN_METADATA0,output:1,set:2->tun_id,output:2,y": "x,set:1->tun_id,move:NXM_TUN_METADATA0,output:1,set:2->tun_id,output:2,output:3,y",
		"set:1->tun_id,resubmit(,1),output:1": "set:1->tun_id,resubmit(,1),output:1",
		"clone(output:2,output:1),drop":       "clone(output:1,output:2),drop",
	} {
		if got := sortOutputs(in); got != want {
			t.Errorf("sortOutputs(%q) = %q, want %q", in, got, want)
		}
	}
}

func TestUnusedGroupsAndMeters(t *testing.T) {
	d := one
	d.Groups += " group_id=6,type=all\n"
	d.Meters += "meter=5 pktps bands=\ntype=drop rate=1\n"
	r := Compare(normalise(t, two), normalise(t, d), Options{})
	want := "15 flows equal\n+ unused group type=all\n+ unused meter pktps bands= type=drop rate=1\n"
	if got := r.String(); r.Same() || got != want {
		t.Errorf("same %t, report %q, want false, %q", r.Same(), got, want)
	}
}
