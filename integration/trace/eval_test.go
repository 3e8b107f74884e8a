package trace

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/offloadd/offloadd/integration/lab"
	"github.com/offloadd/offloadd/integration/lab/labtest"
	"github.com/offloadd/offloadd/integration/parity/content"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/openflow"
)

// A single is a node n1 with offloadd and a content of integration/parity.
type single struct {
	*labtest.Lab
	node    *lab.Node
	content content.Content
}

// remoteHosts are the tunnel endpoints of other chassis in integration/parity's contents. Nobody answers there.
var remoteHosts = []string{"172.31.0.102", "172.31.0.103", "172.31.0.104", "172.31.0.105", "172.31.0.106"}

// install brings a content up and returns when its flows are in the bridge.
func install(t *testing.T, c content.Content) single {
	t.Helper()
	l := labtest.Start(t, lab.Options{
		Nodes:        []lab.NodeConfig{{Name: "n1", Agent: lab.None}},
		OffloaddPath: labtest.Offloadd(t),
	})
	n := l.Node("n1")
	l.NB(c.NB)
	l.NB("--wait=sb sync")
	l.SB(c.SB)
	l.NB("--wait=sb sync")
	var commands []string
	for i, p := range c.Local {
		name := fmt.Sprintf("v%d", i)
		commands = append(commands, "--", "add-port", "br-int", name,
			"--", "set", "interface", name, "type=internal", "external_ids:iface-id="+strconv.Quote(p))
	}
	if len(commands) > 0 {
		_, err := n.VSctl(t.Context(), commands[1:]...)
		l.Check(err)
	}
	l.Check(n.StartAgent(lab.Offloadd))
	for _, host := range remoteHosts {
		_, err := n.AppCtl(t.Context(), "tnl/neigh/set", "br-phy", host, "0a:00:ac:1f:00:ff")
		l.Check(err)
	}
	flows, same := -1, 0
	l.Eventually(20*time.Second, "the flows stay as they are", func() bool {
		l.Sync() // claims change the logical flows
		now, err := n.Flows(t.Context(), "br-int")
		l.Check(err)
		if same++; now != flows {
			flows, same = now, 0
		}
		return now > 0 && same == 10
	})
	return single{l, n, c}
}

// rules reads the flows of the bridge. There are no groups: which bucket a packet takes is up to a hash.
func (s single) rules() []ir.Rule {
	s.T.Helper()
	ctx := s.T.Context()
	conn, err := openflow.Dial(ctx, filepath.Join(s.node.Dir, "br-int.mgmt"))
	s.Check(err)
	defer func() { _ = conn.Close() }()
	var rules []ir.Rule
	s.Check(conn.DumpFlows(ctx, func(f *openflow.FlowStats) error {
		m, err := openflow.DecodeMatch(f.Match)
		if err != nil {
			return err
		}
		acts, err := openflow.DecodeActions(f.Actions)
		rules = append(rules, ir.Rule{Table: f.Table, Priority: f.Priority, Cookie: f.Cookie, Match: m, Actions: acts})
		return err
	}))
	return rules
}

func program(rules []ir.Rule) *eval.Program {
	var b eval.Builder
	b.Add(eval.Owner{}, rules, nil)
	return b.Program()
}

// mutations are ways to misunderstand rules. Each returns what it makes of one; no rule at all if ok is false.
var mutations = map[string]func(r ir.Rule) (_ ir.Rule, ok bool){
	"the smallest priority wins": func(r ir.Rule) (ir.Rule, bool) {
		r.Priority = ^r.Priority
		return r, true
	},
	"conjunctions are never satisfied": func(r ir.Rule) (ir.Rule, bool) {
		_, member := first(r.Actions).(ir.Conjunction)
		return r, !member
	},
	"conditions on some bits of a field do not count": func(r ir.Rule) (ir.Rule, bool) {
		r.Match = slices.DeleteFunc(slices.Clone(r.Match), func(t ir.Term) bool { return t.Mask != t.Field.Ones() })
		return r, true
	},
	"copies are no copies": actions(func(a ir.Action, _ []ir.Action) []ir.Action {
		if c, ok := a.(ir.Clone); ok {
			return c.Actions
		}
		return []ir.Action{a}
	}),
	"a resubmit does not return": actions(func(a ir.Action, before []ir.Action) []ir.Action {
		for _, b := range before {
			if _, gone := b.(ir.Resubmit); gone {
				return nil
			}
		}
		return []ir.Action{a}
	}),
	"connections are not tracked": actions(func(a ir.Action, _ []ir.Action) []ir.Action {
		if ct, ok := a.(ir.CT); ok && ct.Table != ir.NoTable {
			return []ir.Action{ir.Resubmit{Table: ct.Table}}
		}
		return []ir.Action{a}
	}),
	"the TTL stays": actions(func(a ir.Action, _ []ir.Action) []ir.Action {
		if _, ok := a.(ir.DecTTL); ok {
			return nil
		}
		return []ir.Action{a}
	}),
	"moves do nothing": actions(func(a ir.Action, _ []ir.Action) []ir.Action {
		if _, ok := a.(ir.Move); ok {
			return nil
		}
		return []ir.Action{a}
	}),
}

func first(actions []ir.Action) ir.Action {
	if len(actions) == 0 {
		return nil
	}
	return actions[0]
}

// actions is a mutation of actions: f returns what stands for one of them after those before it.
func actions(f func(a ir.Action, before []ir.Action) []ir.Action) func(ir.Rule) (ir.Rule, bool) {
	var list func(acts []ir.Action) []ir.Action
	list = func(acts []ir.Action) []ir.Action {
		var out []ir.Action
		for i, a := range acts {
			if c, ok := a.(ir.Clone); ok {
				a = ir.Clone{Actions: list(c.Actions)}
			}
			out = append(out, f(a, acts[:i])...)
		}
		return out
	}
	return func(r ir.Rule) (ir.Rule, bool) {
		r.Actions = list(r.Actions)
		return r, true
	}
}

func mutated(rules []ir.Rule, mutation func(ir.Rule) (ir.Rule, bool)) *eval.Program {
	var out []ir.Rule
	for _, r := range rules {
		if r, ok := mutation(r); ok {
			out = append(out, r)
		}
	}
	return program(out)
}

// flowText is p as ofproto/trace takes it.
func flowText(p map[ir.Field]ir.U128) string {
	var m ir.Match
	for _, f := range slices.Sorted(maps.Keys(p)) {
		m, _ = m.With(f, p[f], f.Ones())
	}
	text := openflow.FormatMatch(m)
	for proto, to := range map[uint64]string{
		6: "tp_src=tcp_src= tp_dst=tcp_dst=", 17: "tp_src=udp_src= tp_dst=udp_dst=", 132: "tp_src=sctp_src= tp_dst=sctp_dst=",
		58: "icmp_type=icmpv6_type= icmp_code=icmpv6_code=",
	} {
		if p[ir.IPProto].Lo != proto {
			continue
		}
		for w := range strings.FieldsSeq(to) {
			old, now, _ := strings.Cut(w, "=")
			text = strings.Replace(text, ","+old+"=", ","+now, 1) // what ovs-ofctl takes for all protocols is for TCP here
		}
	}
	return text
}

// A passage is what happens to a packet between the interface, or the connection tracker, and where it goes.
type passage struct {
	Lookups []string // table, priority and cookie
	Outputs []string // OpenFlow ports
	Tunnels []string // datapath, and ports where it came from and where it is going, of what leaves by tunnels; sorted
	Final   map[string]string
}

func packetOf(fields map[ir.Field]ir.U128) eval.Packet {
	var p eval.Packet
	for f, v := range fields {
		p.Set(f, v)
	}
	return p
}

// passages runs a packet through the program. Of states are left those that were met, with what translation adds to them.
func passages(p *eval.Program, tunnels []uint64, pkt map[ir.Field]ir.U128, states []uint32) (all []passage, met []uint32, err error) {
	var now passage
	r, err := p.Run(packetOf(pkt), 0, eval.Options{CT: states, Observe: func(s eval.Step) {
		switch s.Kind {
		case eval.Lookup:
			line := fmt.Sprintf("%d none", s.Table)
			if s.Rule != nil {
				line = fmt.Sprintf("%d %d %#x", s.Table, s.Rule.Priority, s.Rule.Cookie)
			}
			now.Lookups = append(now.Lookups, line)
		case eval.Transmit:
			now.Outputs = append(now.Outputs, fmt.Sprint(s.Port))
			if slices.Contains(tunnels, uint64(s.Port)) {
				now.Tunnels = append(now.Tunnels, fmt.Sprintf("%v %v", s.Packet.Value(ir.TunID), s.Packet.Value(ir.TunMetadata0)))
			}
		case eval.Done:
			slices.Sort(now.Tunnels)
			now.Final = fieldsOf(s.Packet)
			all = append(all, now)
			now = passage{}
		case eval.Act, eval.Punt, eval.Note, eval.Resume, eval.Begin, eval.End:
		}
	}})
	return all, r.CT, err
}

// fieldsOf returns the fields of p that are not 0, as ofproto/trace prints them.
func fieldsOf(p *eval.Packet) map[string]string {
	var m ir.Match
	for f := ir.Field(1); f < ir.XReg0; f++ {
		if v := p.Value(f); !v.IsZero() {
			m, _ = m.With(f, v, f.Ones())
		}
	}
	return words(openflow.FormatMatch(m))
}

// words splits a flow into its conditions and leaves out those that say that something is 0.
func words(flow string) map[string]string {
	all := map[string]string{}
	for w := range strings.SplitSeq(flow, ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(w), "=")
		switch value {
		case "0", "0x0", "0x0000", "no", "0.0.0.0", "::", "00:00:00:00:00:00", "0x00000":
			continue
		}
		switch key {
		case "tun_id", "tun_metadata0": // they are printed or not depending on others; see passage.Tunnels
			continue
		case "recirc_id", "eth", "ct_nw_src", "ct_nw_dst", "ct_ipv6_src", "ct_ipv6_dst", "ct_nw_proto", "ct_tp_src", "ct_tp_dst":
			continue
		}
		all[key] = value
	}
	return all
}

var (
	traceLookup = regexp.MustCompile(`^( *)(\d+)\. (?:(No match)|(?:.*, )?priority (\d+)(?:, cookie (0x[0-9a-f]+))?$)`)
	traceTunnel = regexp.MustCompile(`geneve\(crit,vni=(0x[0-9a-f]+),options\(\{class=0x102,type=0x80,len=4,(0x[0-9a-f]+)\}\)\)`)
	traceOutput = regexp.MustCompile(`^ *output:(\d+)$`)
	traceBridge = regexp.MustCompile(`^ *bridge\("(.*)"\)$`)
)

// traced asks ovs-vswitchd what becomes of a packet.
func (s single) traced(pkt map[ir.Field]ir.U128, states []uint32) (all []passage, text string) {
	s.T.Helper()
	args := []string{"ofproto/trace", "br-int", flowText(pkt)}
	for _, state := range states {
		args = append(args, "--ct-next", ctText(state))
	}
	text, err := s.node.AppCtl(s.T.Context(), args...)
	s.Check(err)
	var now passage
	first := ""
	const none = -1
	foreign := none // the indentation of what happens on another bridge
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		indent := len(line) - len(strings.TrimLeft(line, " "))
		if indent <= foreign && strings.Trim(line, " -") != "" {
			foreign = none
		}
		if m := traceBridge.FindStringSubmatch(line); m != nil && m[1] != "br-int" && foreign == none {
			foreign = indent
		}
		flow, isFlow := strings.CutPrefix(line, "Flow: ")
		final, isFinal := strings.CutPrefix(line, "Final flow: ")
		m := traceLookup.FindStringSubmatch(line)
		switch {
		case isFlow:
			first = flow
		case isFinal:
			if final == "unchanged" {
				final = first
			}
			now.Final = words(final)
		case strings.HasPrefix(line, "Datapath actions: "):
			for _, m := range traceTunnel.FindAllStringSubmatch(line, -1) {
				now.Tunnels = append(now.Tunnels, m[1]+" "+m[2])
			}
			slices.Sort(now.Tunnels)
			all = append(all, now)
			now = passage{}
		case foreign != none:
		case m != nil && m[3] != "":
			now.Lookups = append(now.Lookups, m[2]+" none")
		case m != nil:
			cookie := m[5]
			if cookie == "" {
				cookie = "0x0"
			}
			now.Lookups = append(now.Lookups, m[2]+" "+m[4]+" "+cookie)
		case strings.Contains(line, ">> skipping output to input port"):
			if now.Outputs = now.Outputs[:len(now.Outputs)-1]; len(now.Outputs) == 0 {
				now.Outputs = nil
			}
		default:
			if o := traceOutput.FindStringSubmatch(line); o != nil {
				now.Outputs = append(now.Outputs, o[1])
			}
		}
	}
	return all, text
}

func ctText(state uint32) string {
	var words []string
	for i, name := range []string{"new", "est", "rel", "rpl", "inv", "trk", "snat", "dnat"} {
		if state>>i&1 != 0 {
			words = append(words, name)
		}
	}
	return strings.Join(words, ",")
}

// TestEvalAsOfprotoTrace sends random packets through the flows of random deployments, once with the interpreter and once with
// ofproto/trace of ovs-vswitchd: they meet the same flows in the same order, leave by the same ports, and are the same in the end.
// Interpreters that misunderstand something are told from it.
func TestEvalAsOfprotoTrace(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	caught := map[string]int{}
	met := map[string]int{}
	for _, c := range append(contents("remote-many", "localport", "routers-chained", "router-acl", "router-mac-bindings", conjunctive), nat,
		content.RandomTopology(rnd.Uint64N(1000)), content.RandomTopology(rnd.Uint64N(1000)), content.RandomACLs(rnd.Uint64N(1000))) {
		t.Run(c.Name, func(t *testing.T) {
			s := install(t, c)
			rules, g := s.rules(), s.traffic(rnd)
			if len(g.ports) == 0 {
				t.Logf("%s has no port here", c.Name)
				return
			}
			p := program(rules)
			mutants := map[string]*eval.Program{}
			for name, mutation := range mutations {
				mutants[name] = mutated(rules, mutation)
			}
			packets := 60
			if c.Name == nat.Name || c.Name == conjunctive {
				packets = 250 // few are translated, and few satisfy a conjunction
			}
			valid := c.Name == nat.Name // ofproto/trace translates invalid packets, too; a switch does not
			for range packets {
				pkt, states := g.packet(), g.states(valid)
				got, states, err := passages(p, g.tunnels, pkt, states)
				if err != nil {
					t.Fatalf("seed %d, %s, packet %s: %v", seed, c.Name, flowText(pkt), err)
				}
				want, text := s.traced(pkt, states)
				if !cmp.Equal(want, got) && tied(rules, pkt, states) {
					met["ambiguous"]++
					continue
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d, %s, packet %s, states %v (-ofproto/trace +eval):\n%s\n%s", seed, c.Name, flowText(pkt), states, diff, text)
				}
				count(met, got)
				if slices.ContainsFunc(states, func(state uint32) bool { return state&(eval.StateSNAT|eval.StateDNAT) != 0 }) {
					met["translated"]++
				}
				for name, m := range mutants {
					if got, _, err := passages(m, g.tunnels, pkt, states); err != nil || !cmp.Equal(want, got) {
						caught[name]++
					}
				}
			}
		})
	}
	t.Logf("packets: %v", met)
	for _, what := range []string{"all", "dropped", "sent", "tunnelled", "tracked", "translated"} {
		if met[what] == 0 {
			t.Errorf("no packet was %s", what)
		}
	}
	if met["ambiguous"] > met["all"]/4 {
		t.Errorf("%d of %d packets were ambiguous: the test says little", met["ambiguous"], met["all"])
	}
	for name := range mutations {
		if caught[name] == 0 {
			t.Errorf("an interpreter for which %s: not noticed", name)
		}
	}
}

// tied reports whether a packet meets a rule where there is another one of the same priority, so that either may be taken.
// ovn-northd makes such rules, most of them with the same actions.
func tied(rules []ir.Rule, pkt map[ir.Field]ir.U128, states []uint32) bool {
	found := false
	_, _ = program(rules).Run(packetOf(pkt), 0, eval.Options{CT: states, Observe: func(s eval.Step) {
		if s.Kind != eval.Lookup || s.Rule == nil || found {
			return
		}
		id, _ := s.Rule.Match.Term(ir.ConjID)
		var others []ir.Rule
		for _, r := range rules {
			members := len(r.Actions)
			r.Actions = slices.DeleteFunc(slices.Clone(r.Actions), func(a ir.Action) bool {
				c, member := a.(ir.Conjunction)
				return member && uint64(c.ID) == id.Value.Lo
			})
			met := r.Priority == s.Rule.Priority && r.Match.Equal(s.Rule.Match)
			if r.Table == s.Table && !met && (members == 0 || len(r.Actions) > 0) {
				others = append(others, r)
			}
		}
		r := program(others).Lookup(s.Table, s.Packet)
		found = r != nil && r.Priority == s.Rule.Priority
	}})
	return found
}

// count counts what became of a packet.
func count(met map[string]int, all []passage) {
	met["all"]++
	if len(all) > 1 {
		met["tracked"]++
	}
	outputs := 0
	for _, p := range all {
		outputs += len(p.Outputs)
		if len(p.Tunnels) > 0 {
			met["tunnelled"]++
		}
	}
	if outputs > 0 {
		met["sent"]++
	} else {
		met["dropped"]++
	}
}

// conjunctive is a content with conjunctive matches.
const conjunctive = "acl-conjunctions-shared"

// nat is a router that translates addresses on this chassis.
var nat = content.Content{Name: "nat", Local: []string{"p1", "p2", "out"}, NB: `
	ls-add sw0
	lsp-add sw0 p1
	lsp-set-addresses p1 "0a:00:00:00:00:01 10.0.0.1"
	lsp-add sw0 p2
	lsp-set-addresses p2 "0a:00:00:00:00:02 10.0.0.2"
	ls-add ext
	lsp-add ext out
	lsp-set-addresses out "0a:00:00:00:01:01 172.16.0.100"
	lr-add lr0
	lrp-add lr0 lr0-sw0 0a:00:00:00:00:fe 10.0.0.254/24
	lsp-add sw0 sw0-lr0 -- lsp-set-type sw0-lr0 router -- lsp-set-addresses sw0-lr0 router -- lsp-set-options sw0-lr0 router-port=lr0-sw0
	lrp-add lr0 lr0-ext 0a:00:00:00:01:fe 172.16.0.254/24
	lsp-add ext ext-lr0 -- lsp-set-type ext-lr0 router -- lsp-set-addresses ext-lr0 router -- lsp-set-options ext-lr0 router-port=lr0-ext
	lrp-set-gateway-chassis lr0-ext n1 10
	lr-nat-add lr0 snat 172.16.0.1 10.0.0.0/24
	lr-nat-add lr0 dnat_and_snat 172.16.0.2 10.0.0.2
	static-mac-binding-add lr0-ext 172.16.0.100 0a:00:00:00:01:01
`}

func contents(names ...string) []content.Content {
	var list []content.Content
	for _, c := range content.Fixed() {
		if slices.Contains(names, c.Name) {
			list = append(list, c)
		}
	}
	return list
}
