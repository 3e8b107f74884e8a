package compile

import (
	goflag "flag"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var seed = goflag.Uint64("seed", 0, "seed of the random actions; 0: the time")

// TestEncodeRandomAsOVNController compares encoder and ovn-controller(8) on random lists of actions.
func TestEncodeRandomAsOVNController(t *testing.T) {
	const first, n = 20000, 400
	s := *seed
	if s == 0 {
		s = uint64(time.Now().UnixNano())
	}
	g := actionGen{rand.New(rand.NewPCG(s, 0))}
	flows := make([]oracleFlow, n)
	for i := range flows {
		flows[i] = oracleFlow{
			dp: oneOf(g, "sw", "rt", "gw"), egress: g.IntN(2) == 0, table: uint8(g.IntN(20)), match: "1",
			actions: g.list(1+g.IntN(4), false),
		}
	}
	c := startOVNController(t)
	c.add(first, flows)
	rules, groups := c.rules(first, n), c.groups()
	texts := make([]string, n)
	for i := range flows {
		texts[i] = flows[i].actions
	}
	refusals := c.refusals(texts...)
	installed := 0
	for i, f := range flows {
		want := "no packet"
		if r, ok := rules[first+i]; ok {
			want = r.text(groups)
			installed++
		}
		if refusal, ok := refusals[f.actions]; ok {
			want = "error: " + refusal
		}
		got := encodeText(f)
		if strings.HasPrefix(got, "where \n") {
			got = "no packet"
		}
		if diff := cmp.Diff(strings.Split(want, "\n"), strings.Split(got, "\n")); diff != "" {
			t.Errorf("-seed %d: %+v (-ovn-controller +encode):\n%s", s, f, diff)
		}
	}
	if installed < n/3 {
		t.Errorf("-seed %d: only %d of %d flows can match a packet", s, installed, n)
	}
}

// An actionGen makes random actions that ovn-controller and the switch accept.
type actionGen struct{ *rand.Rand }

func oneOf[T any](g actionGen, choices ...T) T { return choices[g.IntN(len(choices))] }

// genFields are fields by width. Few of them exclude each other, so that most lists match some packet.
var genFields = map[int][]string{
	0:   {"inport", "outport"},
	1:   {"flags.loopback", "reg9[1]", "reg0[31]", "xxreg1[127]", "flags.use_snat_zone", "xreg4[63]", "eth.src[40]"},
	16:  {"reg8[16..31]", "reg2[0..15]", "xxreg0[8..23]", "tcp.src", "tcp.dst", "pkt.mark[4..19]", "vlan.tci"},
	32:  {"reg0", "reg1", "reg5", "reg8", "reg9", "xxreg0[96..127]", "xreg4[16..47]", "pkt.mark", "ip4.src", "ip4.dst", "flags"},
	48:  {"eth.src", "eth.dst", "xreg0[0..47]", "xxreg1[10..57]"},
	64:  {"xreg0", "xreg1", "xreg3", "xreg4", "xxreg0[1..64]"},
	128: {"xxreg0", "xxreg1"},
}

func (g actionGen) width() int { return oneOf(g, 0, 1, 16, 32, 48, 64, 128) }

func (g actionGen) field(width int) string { return oneOf(g, genFields[width]...) }

func (g actionGen) port() string {
	return oneOf(g, "lp1", "lp2", "sw-rt", "rt-sw", "gw-sw", "_MC_flood", "", "nosuch")
}

// constant returns a constant of at most width bits, perhaps masked.
func (g actionGen) constant(width int) string {
	digits := func() string {
		text := make([]byte, 0, 34)
		for range 1 + g.IntN(width/4+1) {
			text = append(text, "0123456789abcdef"[g.IntN(16)])
		}
		return string(text[:max(1, min(len(text), width/4))])
	}
	switch {
	case width == 1:
		return oneOf(g, "0", "1")
	case g.IntN(4) == 0:
		return "0x" + digits() + "/0x" + digits()
	}
	return "0x" + digits()
}

func (g actionGen) backend(v6 bool) string {
	addr := fmt.Sprintf("10.0.%d.%d", g.IntN(256), g.IntN(256))
	if v6 {
		addr = fmt.Sprintf("[2001:db8::%x]", 1+g.IntN(0xffff))
	}
	return addr + oneOf(g, "", fmt.Sprintf(":%d", 1+g.IntN(65535)))
}

func (g actionGen) list(n int, nested bool) string {
	var acts []string
	if !nested && g.IntN(8) == 0 {
		acts = append(acts, g.commit()) // ovn-controller 23.03.1 garbles what is before it
	}
	for range n {
		acts = append(acts, g.action(nested))
	}
	return strings.Join(acts, " ")
}

func (g actionGen) commit() string {
	return fmt.Sprintf("ct_commit { ct_mark%s; ct_label%s; };",
		oneOf(g, ".blocked = 1", " = reg5", " = "+g.constant(32), "[3..18] = vlan.tci"),
		oneOf(g, ".natted = 0", " = xxreg1", " = "+g.constant(128), ".ecmp_reply_eth = eth.src"))
}

func (g actionGen) action(nested bool) string {
	w := g.width()
	bit := g.field(1)
	// ovn-controller 23.03.1 confuses itself with address translation inside clone.
	n := 24
	if nested {
		n = 21
	}
	switch g.IntN(n) {
	case 0, 1, 2:
		if w == 0 {
			return fmt.Sprintf("%s = %q;", g.field(0), g.port())
		}
		return fmt.Sprintf("%s = %s;", g.field(w), g.constant(w))
	case 3, 4:
		return fmt.Sprintf("%s = %s;", g.field(w), g.field(w))
	case 5:
		return fmt.Sprintf("%s <-> %s;", g.field(w), g.field(w))
	case 6:
		return fmt.Sprintf("push(%s); pop(%s);", g.field(w), g.field(w))
	case 7:
		return oneOf(g, "next;", "output;", "ct_clear;", "ip.ttl--;", "ct_snat_to_vip;", "ct_next;")
	case 8:
		return fmt.Sprintf("next(pipeline=%s, table=%d);", oneOf(g, "ingress", "egress"), g.IntN(22))
	case 9, 10:
		v6 := g.IntN(2) == 0
		backends := []string{g.backend(v6)}
		for range g.IntN(3) {
			backends = append(backends, g.backend(v6))
		}
		return fmt.Sprintf("%s(backends=%s%s%s);", oneOf(g, "ct_lb", "ct_lb_mark"), strings.Join(backends, ","),
			oneOf(g, "", `; hash_fields="ip_dst,ip_src,tcp_src"`, `; hash_fields="eth_dst"`),
			oneOf(g, "", "; skip_snat", "; force_snat"))
	case 11:
		return fmt.Sprintf("%s = select(%d=%d, %d, %d=%d);", g.field(oneOf(g, 16, 32, 64)),
			g.IntN(65536), 1+g.IntN(65535), g.IntN(65536), g.IntN(65536), 1+g.IntN(65535))
	case 12:
		return fmt.Sprintf("get_arp(%s, %s);", g.field(0), g.field(32))
	case 13:
		return fmt.Sprintf("get_nd(%s, %s);", g.field(0), g.field(128))
	case 14:
		return fmt.Sprintf("%s = lookup_arp(%s, %s, %s);", bit, g.field(0), g.field(32), g.field(48))
	case 15:
		return fmt.Sprintf("%s = lookup_nd(%s, %s, %s);", bit, g.field(0), g.field(128), g.field(48))
	case 16:
		return oneOf(g,
			fmt.Sprintf("%s = lookup_arp_ip(%s, %s);", bit, g.field(0), g.field(32)),
			fmt.Sprintf("%s = lookup_nd_ip(%s, %s);", bit, g.field(0), g.field(128)))
	case 17:
		return oneOf(g,
			fmt.Sprintf("%s = get_fdb(%s);", oneOf(g, g.field(0), g.field(32)), g.field(48)),
			fmt.Sprintf("%s = lookup_fdb(%s, %s);", bit, g.field(0), g.field(48)))
	case 18:
		return bit + " = " + oneOf(g, "chk_lb_hairpin", "chk_lb_hairpin_reply", "check_in_port_sec", "check_out_port_sec",
			"chk_ecmp_nh_mac", "chk_ecmp_nh", "chk_lb_aff") + "();"
	case 19:
		return fmt.Sprintf("%s = check_pkt_larger(%d);", bit, g.IntN(65536))
	case 20:
		return oneOf(g, fmt.Sprintf("set_queue(%d);", g.IntN(61441)), fmt.Sprintf("set_meter(%d);", 1+g.IntN(1e6)))
	case 21:
		verb := oneOf(g, "ct_dnat", "ct_snat", "ct_dnat_in_czone", "ct_snat_in_czone")
		addr := oneOf(g, "10.1.2.3", "2001:db8::7")
		return verb + oneOf(g, "", "("+addr+")", "("+addr+", 80)", "("+addr+", 1024-2047)") + ";"
	case 22:
		return oneOf(g, "ct_lb;", "ct_lb_mark;", "ct_commit_nat;")
	default:
		return fmt.Sprintf("clone { %s };", g.list(1+g.IntN(3), true))
	}
}
