package content

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// RandomTopology returns switches, routers, chassis, ports and ACLs that follow from the seed alone.
func RandomTopology(seed uint64) Content {
	r := rand.New(rand.NewPCG(seed, 1))
	c := Content{Name: fmt.Sprintf("random-topology-%d", seed), About: "switches, routers, chassis and ACLs drawn at random"}
	var nb, sb strings.Builder

	chassisCount := r.IntN(4)
	for i := range chassisCount {
		sb.WriteString(chassis(fmt.Sprintf("hv%d", i+2), pick(r, "geneve", "geneve", "geneve,vxlan"), fmt.Sprintf("172.31.0.%d", 102+i)))
	}
	switches, routers := 1+r.IntN(4), r.IntN(3)
	for i := range routers {
		fmt.Fprintf(&nb, "lr-add lr%d\n", i)
	}
	var local []string // candidates for ACLs
	for s := range switches {
		fmt.Fprintf(&nb, "ls-add sw%d\n", s)
		text, names := ports(fmt.Sprintf("sw%d", s), fmt.Sprintf("s%dp", s), 10+s, 1+r.IntN(5))
		nb.WriteString(text)
		for i, p := range names {
			address := fmt.Sprintf("0a:00:00:00:%02x:%02x 10.%d.0.%d", 10+s, i+1, 10+s, i+1)
			switch r.IntN(6) {
			case 0:
				fmt.Fprintf(&nb, "lsp-set-port-security %s \"%s\"\n", p, address)
			case 1:
				fmt.Fprintf(&nb, "lsp-set-addresses %s \"%s\" unknown\n", p, address)
			case 2:
				fmt.Fprintf(&nb, "lsp-set-enabled %s disabled\n", p)
			}
			switch n := r.IntN(4); {
			case n < 2:
				c.Local = append(c.Local, p)
				local = append(local, p)
			case n == 2 && chassisCount > 0:
				fmt.Fprintf(&sb, "lsp-bind %s hv%d\n", p, 2+r.IntN(chassisCount))
			}
		}
		for i := range routers {
			if r.IntN(3) > 0 {
				nb.WriteString(attach(fmt.Sprintf("lr%d", i), fmt.Sprintf("sw%d", s), fmt.Sprintf("0a:00:00:00:%02x:%02x", 10+s, 0xf0+i),
					fmt.Sprintf("10.%d.0.%d/24", 10+s, 240+i), fmt.Sprintf("fd%02x::%x/64", 10+s, 0xf0+i)))
			}
		}
		if r.IntN(2) == 0 {
			g := grammar{rnd: r, ports: names}
			for priority := range 1 + r.IntN(4) {
				nb.WriteString(g.acl(fmt.Sprintf("sw%d", s), 1000+priority))
			}
		}
	}
	if routers == 2 && r.IntN(2) == 0 {
		nb.WriteString(join("lr0", "lr1", 1))
	}
	for i := range routers {
		for n := range r.IntN(3) {
			fmt.Fprintf(&nb, "lr-route-add lr%d 192.168.%d.0/24 10.%d.0.%d\n", i, n, 10+r.IntN(switches), 100+n)
		}
	}
	if len(local) > 1 && r.IntN(2) == 0 {
		fmt.Fprintf(&nb, "pg-add pg1 %s\n", strings.Join(local, " "))
		nb.WriteString("acl-add pg1 to-lport 900 \"outport == @pg1 && ip4.src == \\$pg1_ip4\" allow-related\n")
	}
	c.NB, c.SB = nb.String(), sb.String()
	return c
}

// RandomACLs returns one switch with ACLs whose matches are drawn from a grammar of valid matches. No two ACLs have
// the same priority: which of two conflicting ones wins would be arbitrary. The grammar leaves out what agents are
// known to translate differently, see parity.Deviations.
func RandomACLs(seed uint64) Content {
	r := rand.New(rand.NewPCG(seed, 2))
	c := Content{Name: fmt.Sprintf("random-acls-%d", seed), About: "ACL matches drawn from a grammar", Local: bothPorts}
	var nb strings.Builder
	nb.WriteString(twoPorts + `
		create address_set name=a4 addresses="10.0.0.1 10.0.0.2 10.1.0.0/16"
		create address_set name=b4 addresses="10.0.0.2"
		create address_set name=a6 addresses="\"fd00::1\" \"fd00::/64\" \"fe80::/10\""
		create address_set name=macs addresses="\"0a:00:00:00:00:01\" \"0a:00:00:00:00:02\""
		pg-add pg1 p1 p2
		pg-add pg2 p2
	`)
	g := grammar{rnd: r, ports: bothPorts, sets: true}
	for priority := range 12 {
		nb.WriteString(g.acl("sw0", 1000+priority))
	}
	c.NB = nb.String()
	return c
}

// A grammar draws matches that are well typed. See "Logical Flow: match" in ovn-sb(5).
type grammar struct {
	rnd   *rand.Rand
	ports []string
	sets  bool // use the address sets a4, b4, a6, macs and the port groups pg1, pg2

	to bool // the direction of the ACL: may the match name outport?
}

// A term is a match and the number of flows it may become when every disjunction is multiplied out: an
// inequality is one flow for each bit.
type term struct {
	text  string
	flows int
}

// acl returns an acl-add command, quoted for a script.
func (g grammar) acl(entity string, priority int) string {
	const mostFlows = 1000
	g.to = g.rnd.IntN(2) == 0
	direction := "from-lport"
	if g.to {
		direction = "to-lport"
	}
	verdict := pick(g.rnd, "allow", "allow-related", "allow-stateless", "drop")
	match := g.match(2)
	for match.flows > mostFlows {
		match = g.match(2)
	}
	quoted := strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(match.text)
	return fmt.Sprintf("acl-add %s %s %d \"%s\" %s\n", entity, direction, priority, quoted, verdict)
}

// match draws a conjunction or disjunction of terms, depth levels deep at most.
func (g grammar) match(depth int) term {
	if depth == 0 {
		return g.term()
	}
	and := g.rnd.IntN(3) > 0
	result := term{flows: 1}
	if !and {
		result.flows = 0
	}
	var texts []string
	for range 1 + g.rnd.IntN(3) {
		t := g.match(depth - 1)
		if strings.Contains(t.text, " && ") || strings.Contains(t.text, " || ") {
			t.text = "(" + t.text + ")"
		}
		texts = append(texts, t.text)
		if and {
			result.flows *= t.flows
		} else {
			result.flows += t.flows
		}
	}
	if and {
		result.text = strings.Join(texts, " && ")
	} else {
		result.text = strings.Join(texts, " || ")
	}
	return result
}

// term draws a comparison. Only ordinal fields may be negated or compared by size.
func (g grammar) term() term {
	r := g.rnd
	terms := []func() term{
		func() term { return g.compare(pick(r, "ip4.src", "ip4.dst"), 32, g.ip4, true) },
		func() term { return g.compare(pick(r, "ip6.src", "ip6.dst"), 128, g.ip6, false) },
		func() term { return g.compare(pick(r, "eth.src", "eth.dst"), 48, g.mac, false) },
		func() term {
			return g.compare(pick(r, "tcp.src", "tcp.dst", "udp.src", "udp.dst", "sctp.dst"), 16, g.port, true)
		},
		g.interval,
		func() term { return term{pick(r, "icmp4.type", "icmp6.type") + " == " + fmt.Sprint(r.IntN(256)), 1} },
		func() term { return term{"ip.ttl == " + pick(r, "1", "{1, 255}"), 2} },
		func() term { return term{"ip.proto == " + pick(r, "6", "{6, 17}", "47"), 4} },
		func() term { return term{"eth.type == " + pick(r, "0x800", "0x86dd", "{0x800, 0x806}"), 2} },
		func() term {
			return term{pick(r, "ip", "ip4", "ip6", "tcp", "udp", "icmp4", "icmp6", "arp", "nd", "nd_ns",
				"eth.mcast", "ip4.mcast", "ip6.mcast", "icmp"), 4}
		},
		func() term {
			return term{pick(r, "!eth.bcast", "!vlan.present", "ip.is_frag", "ip.first_frag"), 48}
		},
		func() term { return term{"arp.op == " + pick(r, "1", "2") + " && arp.spa == " + g.ip4(), 1} },
		func() term { return term{fmt.Sprintf("ip4.src[4..7] == %d", r.IntN(16)), 1} },
		func() term { return term{fmt.Sprintf("tcp.dst[%d] == %d", r.IntN(16), r.IntN(2)), 2} },
		g.logicalPort,
	}
	if g.sets {
		terms = append(terms,
			func() term {
				return term{pick(r, "ip4.src", "ip4.dst") + " == " + pick(r, "$a4", "$b4", "{$a4, 10.9.9.9}", "{$a4, $b4}"), 4}
			},
			func() term { return term{pick(r, "ip4.src", "ip4.dst") + " != $b4", 32} },
			func() term { return term{pick(r, "ip6.src", "ip6.dst") + " == $a6", 3} },
			func() term { return term{pick(r, "eth.src", "eth.dst") + " == $macs", 2} },
			func() term { return term{"ip4.src == $a4 && tcp.dst == {80, 443, 8080}", 9} },
		)
	}
	return terms[r.IntN(len(terms))]()
}

// compare draws a comparison of a field of some bits with a constant or, for == and !=, a set of up to four.
func (g grammar) compare(field string, bits int, constant func() string, bySize bool) term {
	operators := []string{"==", "==", "==", "!="}
	if bySize {
		operators = append(operators, "<", "<=", ">", ">=")
	}
	operator := pick(g.rnd, operators...)
	if operator != "==" && operator != "!=" {
		value, _, _ := strings.Cut(constant(), "/") // the sizes of prefixes cannot be compared
		return term{fmt.Sprintf("%s %s %s", field, operator, value), bits}
	}
	set := []string{constant()}
	flows := 1
	for range g.rnd.IntN(4) {
		set = append(set, constant())
		flows++
	}
	if operator == "!=" {
		flows = 1
		for range set {
			flows *= bits
		}
	}
	if len(set) == 1 {
		return term{fmt.Sprintf("%s %s %s", field, operator, set[0]), flows}
	}
	return term{fmt.Sprintf("%s %s {%s}", field, operator, strings.Join(set, ", ")), flows}
}

func (g grammar) interval() term {
	low := g.rnd.IntN(60000)
	return term{fmt.Sprintf("%d %s %s %s %d", low, pick(g.rnd, "<", "<="), pick(g.rnd, "tcp.dst", "udp.src"),
		pick(g.rnd, "<", "<="), low+1+g.rnd.IntN(5000)), 32}
}

func (g grammar) logicalPort() term {
	field := "inport"
	if g.to {
		field = "outport"
	}
	p := `"` + pick(g.rnd, g.ports...) + `"`
	choices := []string{field + " == " + p, field + ` == {` + p + `, "nowhere"}`}
	if g.sets {
		choices = append(choices, field+" == @pg1", field+" == {@pg1, @pg2}", field+" == @pg2")
	}
	return term{pick(g.rnd, choices...), 2}
}

func (g grammar) ip4() string {
	return pick(g.rnd, "10.0.0.1", "10.0.0.2", fmt.Sprintf("10.0.%d.%d", g.rnd.IntN(4), g.rnd.IntN(256)),
		"10.0.0.0/24", "192.168.0.0/16", "255.255.255.255", "0.0.0.0/1", "10.0.0.4/255.0.0.255")
}

func (g grammar) ip6() string {
	return pick(g.rnd, "fd00::1", fmt.Sprintf("fd00::%x", g.rnd.IntN(65536)), "fd00::/64", "ff02::/16", "fe80::/10", "::")
}

func (g grammar) mac() string {
	return pick(g.rnd, "0a:00:00:00:00:01", fmt.Sprintf("0a:00:00:00:00:%02x", g.rnd.IntN(256)), "01:00:00:00:00:00/01:00:00:00:00:00", "ff:ff:ff:ff:ff:ff")
}

func (g grammar) port() string {
	return pick(g.rnd, "80", "443", "0", "65535", fmt.Sprint(g.rnd.IntN(65536)))
}

// pick draws one of choices.
func pick(r *rand.Rand, choices ...string) string { return choices[r.IntN(len(choices))] }
