//go:build integration

package logical_test

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/logical"
	"github.com/offloadd/offloadd/pkg/openflow"
)

var matches = flag.Int("matches", 2000, "number of random matches to compare with ovn-controller")

// rig is a chassis with ovn-controller and a router of which we write the logical flows.
type rig struct {
	*labtest.Lab
	datapath string // UUID of the router's Datapath_Binding
	key      uint64 // its tunnel key
	ports    map[string]uint32
	seq      int
}

func newRig(t *testing.T) *rig {
	r := &rig{Lab: labtest.Start(t, lab.Options{Nodes: []lab.NodeConfig{{Name: "n1", Agent: lab.OVNController}}})}
	r.NB(`
		lr-add r
		ls-add sw0
		lsp-add sw0 vm1
		lrp-add r r1 0a:00:00:00:00:01 10.0.0.1/24
		lrp-add r r2 0a:00:00:00:00:02 10.0.1.1/24
		lrp-add r r3 0a:00:00:00:00:03 10.0.2.1/24
		lsp-add sw0 sw0-r
		lsp-set-type sw0-r router
		lsp-set-addresses sw0-r router
		lsp-set-options sw0-r router-port=r1
	`)
	_, err := r.Node("n1").VSctl(t.Context(), "add-port", "br-int", "v0",
		"--", "set", "interface", "v0", "type=internal", "external_ids:iface-id=vm1")
	r.Check(err)
	r.Sync()
	r.Check(r.Pause(t.Context())) // ovn-northd would remove what it does not know
	words := strings.Fields(r.SB("--bare --columns=_uuid,tunnel_key find datapath_binding external_ids:name=r"))
	r.datapath = words[0]
	r.key, err = strconv.ParseUint(words[1], 10, 32)
	r.Check(err)
	r.ports = map[string]uint32{"none": 0}
	for _, p := range []string{"r1", "r2", "r3"} {
		key, err := strconv.ParseUint(strings.TrimSpace(r.SB("--bare --columns=tunnel_key find port_binding logical_port="+p)), 10, 32)
		r.Check(err)
		r.ports[p] = uint32(key)
	}
	r.SB(`
		create address_set name=web 'addresses="10.0.0.1","10.0.0.2"'
		create address_set name=nets 'addresses="10.1.0.0/16","10.2.0.0/16","10.1.2.0/24"'
		create address_set name=six 'addresses="fd00::1","fd00::2"'
		create address_set name=empty
		create port_group name=pg 'ports="r1","r2","gone"'
		create port_group name=lost 'ports="gone"'
	`)
	return r
}

func (r *rig) AddressSet(name string) ([]logical.Constant, bool) {
	addresses, ok := map[string][]string{
		"web": {"10.0.0.1", "10.0.0.2"}, "nets": {"10.1.0.0/16", "10.2.0.0/16", "10.1.2.0/24"}, "six": {"fd00::1", "fd00::2"},
		"empty": {},
	}[name]
	set, _ := logical.ParseAddressSet(addresses)
	return set, ok
}

// PortGroup leaves out "gone": ovn-controller sees only the ports of a group that concern the chassis.
func (r *rig) PortGroup(name string) ([]string, bool) {
	ports, ok := map[string][]string{"pg": {"r1", "r2"}, "lost": {}}[name]
	return ports, ok
}

func (r *rig) port(name string) (uint32, bool) {
	key, ok := r.ports[name]
	return key, ok
}

// table is a logical table that ovn-northd does not use, and the OpenFlow table behind it.
const table, openflowTable = 25, 8 + 25

// flows are the matches of one logical flow, as text, with conjunctions numbered from 1.
type flows map[string]bool

// add adds a match and the conjunctions of its flow.
func (f flows) add(m ir.Match, conj []ir.Conjunction, ids []uint32) {
	rank := func(id uint32) uint32 { return uint32(slices.Index(ids, id) + 1) }
	text := ""
	for _, t := range m {
		if t.Field == ir.ConjID {
			t.Value = ir.U64(uint64(rank(uint32(t.Value.Lo))))
		}
		if t.Field != ir.Metadata {
			text += fmt.Sprintf("%s=%s/%s,", t.Field, t.Value, t.Mask)
		}
	}
	var actions []string
	for _, c := range conj {
		actions = append(actions, fmt.Sprintf("conjunction(%d,%d/%d)", rank(c.ID), c.Clause+1, c.N))
	}
	slices.Sort(actions)
	f[text+" "+strings.Join(actions, ",")] = true
}

func (f flows) sorted() []string {
	var out []string
	for s := range f {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

type flow struct {
	match ir.Match
	conj  []ir.Conjunction
}

// texts returns the flows as text. All ids of conjunctions are renamed to their rank.
func texts(list []flow) []string {
	var ids []uint32
	for _, f := range list {
		if t, ok := f.match.Term(ir.ConjID); ok {
			ids = append(ids, uint32(t.Value.Lo))
		}
		for _, c := range f.conj {
			ids = append(ids, c.ID)
		}
	}
	slices.Sort(ids)
	ids = slices.Compact(ids)
	out := flows{}
	for _, f := range list {
		out.add(f.match, f.conj, ids)
	}
	return out.sorted()
}

// theirs lets ovn-controller install the matches, and returns the flows of each.
func (r *rig) theirs(list []string) [][]flow {
	list = append(slices.Clip(list), "1") // which tells when all are installed
	const batch = 200
	for first := 0; first < len(list); first += batch {
		ops := []any{}
		for i, text := range list[first:min(first+batch, len(list))] {
			ops = append(ops, map[string]any{"op": "insert", "table": "Logical_Flow", "row": map[string]any{
				"logical_datapath": []any{"uuid", r.datapath}, "pipeline": "ingress", "table_id": table,
				"priority": first + i, "match": text, "actions": "drop;",
			}})
		}
		b, err := json.Marshal(ops)
		r.Check(err)
		r.transact(string(b))
	}
	r.seq++
	n := strconv.Itoa(1000 + r.seq)
	r.SB("set sb_global . nb_cfg=" + n)
	var out [][]flow
	r.Eventually(2*time.Minute, "ovn-controller installs the flows", func() bool {
		if strings.TrimSpace(r.SB("--bare --columns=nb_cfg list chassis_private")) != n {
			return false
		}
		out = r.dump(list)
		return len(out[len(list)-1]) == 1
	})
	r.transact(fmt.Sprintf(`[{"op": "delete", "table": "Logical_Flow", "where": [["table_id", "==", %d]]}]`, table))
	return out[:len(list)-1]
}

// transact runs a transaction that must succeed.
func (r *rig) transact(ops string) {
	r.T.Helper()
	out, err := r.SBTransact(r.T.Context(), ops)
	r.Check(err)
	if strings.Contains(out, `"error"`) {
		r.T.Fatal(out)
	}
}

// dump returns the flows of the table by priority, of which the i-th match has i.
func (r *rig) dump(texts []string) [][]flow {
	conn, err := openflow.Dial(r.T.Context(), filepath.Join(r.Node("n1").Dir, "br-int.mgmt"))
	r.Check(err)
	defer conn.Close()
	out := make([][]flow, len(texts))
	r.Check(conn.DumpFlows(r.T.Context(), func(s *openflow.FlowStats) error {
		if s.Table != openflowTable {
			return nil
		}
		if int(s.Priority) >= len(texts) {
			return fmt.Errorf("flow of priority %d", s.Priority)
		}
		m, err := openflow.DecodeMatch(slices.Clone(s.Match))
		if err != nil {
			return fmt.Errorf("%s: match %x: %w", texts[s.Priority], s.Match, err)
		}
		if t, ok := m.Term(ir.Metadata); !ok || t.Value.Lo != r.key {
			return nil
		}
		f := flow{match: m}
		actions, err := openflow.DecodeActions(slices.Clone(s.Actions))
		if err != nil {
			return err
		}
		for _, a := range actions {
			c, ok := a.(ir.Conjunction)
			if !ok {
				return fmt.Errorf("action %v", a)
			}
			f.conj = append(f.conj, c)
		}
		out[s.Priority] = append(out[s.Priority], f)
		return nil
	}))
	return out
}

// ours compiles a match.
func (r *rig) ours(text string) ([]flow, error) {
	e, err := logical.ParseMatch(text, logical.Symbols(), r)
	if err != nil {
		return nil, err
	}
	m, err := e.Matches(func(port string) bool { return port == "vm1" })
	if err != nil {
		return nil, err
	}
	var out []flow
	m.ForDatapath(r.port, func(f logical.FlowMatch) {
		// OpenFlow cannot express each mask of a VLAN tag.
		match, err := openflow.DecodeMatch(openflow.AppendMatch(nil, f.Match))
		r.Check(err)
		o := flow{match: match}
		for _, c := range f.Conj {
			o.conj = append(o.conj, ir.Conjunction{ID: c.ID, Clause: c.Clause, N: c.N})
		}
		out = append(out, o)
	})
	return out, nil
}

// costly reports whether text would keep ovn-controller from the rest: because it takes long, or because its flows
// cannot be expressed, which Open vSwitch would refuse together with all others.
func (r *rig) costly(text string) bool {
	began := time.Now()
	flows, err := r.ours(text)
	if se := (*logical.ParseError)(nil); err != nil && !errors.As(err, &se) {
		return true
	}
	return len(flows) > 100 || time.Since(began) > 500*time.Microsecond
}

// Random matches give the very flows that ovn-controller installs for them, conjunctions included.
func TestMatchesAgreeWithController(t *testing.T) {
	r := newRig(t)
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	total, failed, bad := 0, 0, 0
	const round = 500
	for done := 0; done < *matches && bad < 5; done += round {
		list := make([]string, min(round, *matches-done))
		for i := range list {
			for list[i] = expression(rnd, 3); r.costly(list[i]); {
				list[i] = expression(rnd, 3)
			}
		}
		for i, theirs := range r.theirs(list) {
			ours, err := r.ours(list[i])
			if err != nil {
				failed++
			}
			total += len(theirs)
			if diff := cmp.Diff(texts(theirs), texts(ours)); diff != "" && bad < 5 {
				bad++
				t.Errorf("%s (-ovn-controller +ours, error %v):\n%s", list[i], err, diff)
			}
		}
	}
	t.Logf("%d matches: %d flows, %d with syntax errors", *matches, total, failed)
}

// expression returns a random expression of at most depth levels.
func expression(rnd *rand.Rand, depth int) string {
	if depth == 0 || rnd.IntN(5) == 0 {
		return comparison(rnd)
	}
	op := []string{" && ", " && ", " || "}[rnd.IntN(3)]
	var subs []string
	for range 1 + rnd.IntN(4) {
		sub := expression(rnd, depth-1)
		if rnd.IntN(25) == 0 {
			sub = "!(" + sub + ")"
		} else {
			sub = "(" + sub + ")"
		}
		subs = append(subs, sub)
	}
	return strings.Join(subs, op)
}

// comparison returns a random comparison, most of which are valid.
func comparison(rnd *rand.Rand) string {
	pick := func(s ...string) string { return s[rnd.IntN(len(s))] }
	set := func(values ...string) string {
		switch rnd.IntN(3) {
		case 0:
			return pick(values...)
		case 1:
			return "{" + pick(values...) + ", " + pick(values...) + "}"
		}
		return "{" + pick(values...) + ", " + pick(values...) + ", " + pick(values...) + "}"
	}
	number := func(max int) string {
		n := rnd.IntN(max + 1)
		if rnd.IntN(3) == 0 {
			n = []int{0, 1, max}[rnd.IntN(3)]
		}
		if rnd.IntN(4) == 0 {
			return fmt.Sprintf("%#x", n)
		}
		return strconv.Itoa(n)
	}
	rel := func() string { return pick("==", "==", "==", "==", "!=", "<", "<=", ">", ">=") }
	switch rnd.IntN(16) {
	case 0:
		return pick("inport", "outport") + " == " + set(`"r1"`, `"r2"`, `"r3"`, `"gone"`, `"none"`, "@pg", "@lost")
	case 1:
		return pick("ip4.src", "ip4.dst", "arp.spa", "arp.tpa", "rarp.tpa") + " " + pick("==", "==", "==", "!=") + " " +
			set("10.0.0.1", "10.0.0.2", "10.1.0.0/16", "0.0.0.0/0", "$web", "$nets", "$empty", "10.0.0.0/255.0.0.255")
	case 2:
		return pick("ip6.src", "ip6.dst", "nd.target") + " == " + set("fd00::1", "fd00::/64", "$six", "ff02::1", "::/0", "fd00::2")
	case 3:
		return pick("tcp.src", "tcp.dst", "udp.dst", "sctp.src") + " == " + set("80", "443", "53", "0x100/0xff00", "8080")
	case 4:
		return pick("tcp.src", "tcp.dst", "udp.src", "udp.dst") + " " + rel() + " " + number(20)
	case 5:
		return number(5) + pick(" < ", " <= ") + pick("tcp.dst", "reg1[0..4]", "vlan.vid", "xxreg1[3..9]") + pick(" < ", " <= ") + number(20)
	case 6:
		i := rnd.IntN(10)
		lo := rnd.IntN(29)
		return fmt.Sprintf("reg%d[%d..%d] %s %s", i, lo, lo+3, rel(), number(15))
	case 7:
		return pick("ct.new", "ct.est", "ct.rel", "ct.trk", "!ct.trk", "!ct.new", "!ct.inv", "ct.rpl == 0", "ct_mark.blocked", "ct_label.natted == 0",
			"ct_mark == 0x10/0x10", "ct_label.label == 7", "ct_label == 0x5/0xf", "ct.snat", "!ct.dnat")
	case 8:
		return pick("ip4", "ip6", "ip", "tcp", "udp", "sctp", "icmp", "icmp4", "icmp6", "arp", "rarp", "nd", "nd_ns", "nd_na", "nd_rs", "nd_ra", "igmp",
			"mldv1", "mldv2", "vlan.present", "!vlan.present", "eth.bcast", "!eth.bcast", "eth.mcast", "!eth.mcast", "eth.mcastv6")
	case 9:
		// ip4 and ip6 keep ! away from these. The opposite of the others is also true without their prerequisites, of
		// which ovn-controller makes many flows that OpenFlow cannot express.
		return pick("ip4 && ip4.mcast", "ip6 && ip6.mcast", "ip4 && ip4.src_mcast", "ip6 && ip6.mcast_flood", "ip6 && ip6.mcast_all_rtrs",
			"ip6 && ip6.mcast_rsvd", "ip && ip.is_frag",
			"ip4 && ip.first_frag", "ip4 && !ip.later_frag", "ip6 && ip.frag == {0, 1}")
	case 10:
		// Not ip.dscp and ip.ecn, of which ovn-controller 23.03 loses all comparisons: it takes the mask of the 6 and
		// 2 bits for that of a part of a byte, which it thinks cannot be expressed (lib/meta-flow.c, mf_set).
		return pick("ip.proto", "ip.ttl", "arp.op", "icmp4.type", "icmp6.code", "icmp4.code", "icmp6.type") + " == " +
			set("0", "1", "2", "3", "0x2")
	case 11:
		return pick("eth.src", "eth.dst", "arp.sha", "nd.sll", "nd.tll", "rarp.tha") + " == " +
			set("0a:00:00:00:00:01", "0a:00:00:00:00:02", "01:00:00:00:00:00/01:00:00:00:00:00")
	case 12:
		return pick("flags.loopback", "flags.use_snat_zone", "xreg4[40]", "xxreg0[100]", "!reg3[7]", "tcp.flags[1]", "pkt.mark[3]", "ip6.label[0]",
			"xreg0 == 0x500000004", "xxreg1 == {1, 2}", "tcp.flags[1..3] == {1, 2}", "ip6.label == {3, 4}", "pkt.mark != 5", "!reg2[0..2]", "!arp.op")
	case 13:
		return pick(`is_chassis_resident("vm1")`, `!is_chassis_resident("vm1")`, `is_chassis_resident("gone")`, "1", "0")
	case 14:
		return pick("reg0", "reg1", "reg4", "reg8", "reg9") + " == " + set("1", "2", "3", "0/1", "0x4/0x4")
	default:
		return pick("vlan.vid", "vlan.pcp", "eth.type", "reg0") + " == " + number(3)
	}
}
