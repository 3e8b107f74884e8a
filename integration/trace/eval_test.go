package trace

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
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
	node *lab.Node
	content.Content
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
		return same == 10
	})
	return single{l, n, c}
}

// program reads the flows of the bridge. It has no groups: which bucket a packet takes is up to a hash.
func (s single) program() *eval.Program {
	s.T.Helper()
	ctx := s.T.Context()
	conn, err := openflow.Dial(ctx, filepath.Join(s.node.Dir, "br-int.mgmt"))
	s.Check(err)
	defer func() { _ = conn.Close() }()
	var b eval.Builder
	s.Check(conn.DumpFlows(ctx, func(f *openflow.FlowStats) error {
		m, err := openflow.DecodeMatch(f.Match)
		if err != nil {
			return err
		}
		acts, err := openflow.DecodeActions(f.Actions)
		b.Add(eval.Owner{}, []ir.Rule{{Table: f.Table, Priority: f.Priority, Cookie: f.Cookie, Match: m, Actions: acts}}, nil)
		return err
	}))
	return b.Program()
}

var (
	macText  = regexp.MustCompile(`\b[0-9a-f]{2}(:[0-9a-f]{2}){5}\b`)
	ipv4Text = regexp.MustCompile(`\b\d+\.\d+\.\d+\.\d+\b`)
	ipv6Text = regexp.MustCompile(`\bf[de][0-9a-f]{0,2}:[0-9a-f:]*[0-9a-f]`)
)

// A traffic draws packets with the addresses that a content mentions.
type traffic struct {
	rnd          *rand.Rand
	macs, v4, v6 []ir.U128
	ports        []uint64 // OpenFlow ports
	tunnels      []uint64
	datapaths    int
}

func (s single) traffic(rnd *rand.Rand) *traffic {
	s.T.Helper()
	g := &traffic{rnd: rnd}
	text := s.Content.NB
	g.macs = append(g.macs, ir.U64(0xffffffffffff), ir.U64(0x333300000001), ir.U64(0x01005e000001), ir.U64(0x0a0000777777))
	for _, m := range macText.FindAllString(text, -1) {
		v, err := strconv.ParseUint(strings.ReplaceAll(m, ":", ""), 16, 48)
		s.Check(err)
		g.macs = append(g.macs, ir.U64(v))
	}
	addr := func(list *[]ir.U128, text string) {
		if a, err := netip.ParseAddr(text); err == nil {
			*list = append(*list, ir.FromBytes(a.AsSlice()))
		}
	}
	for _, a := range append(ipv4Text.FindAllString(text, -1), "192.0.2.7", "224.0.0.251", "255.255.255.255") {
		addr(&g.v4, a)
	}
	for _, a := range append(ipv6Text.FindAllString(text, -1), "2001:db8::7", "ff02::1", "ff02::1:ff00:1", "fe80::1") {
		addr(&g.v6, a)
	}
	out, err := s.node.VSctl(s.T.Context(), "--bare", "--columns=name,ofport,type", "list", "interface")
	s.Check(err)
	for row := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		f := strings.Fields(row)
		if len(f) < 3 {
			continue
		}
		n, err := strconv.ParseUint(f[1], 10, 16)
		if err != nil {
			continue
		}
		switch {
		case f[2] == "geneve":
			g.tunnels = append(g.tunnels, n)
		case f[2] == "internal" && strings.HasPrefix(f[0], "v"):
			g.ports = append(g.ports, n)
		}
	}
	return g
}

func pick[T any](rnd *rand.Rand, list []T) T { return list[rnd.IntN(len(list))] }

// packet draws one.
func (g *traffic) packet() map[ir.Field]ir.U128 {
	r := g.rnd
	p := map[ir.Field]ir.U128{ir.EthSrc: pick(r, g.macs), ir.EthDst: pick(r, g.macs)}
	set := func(f ir.Field, v uint64) { p[f] = ir.U64(v) }
	if len(g.tunnels) > 0 && r.IntN(4) == 0 {
		set(ir.InPort, pick(r, g.tunnels))
		set(ir.TunSrc, 0xac1f0066)
		set(ir.TunDst, 0xac1f0001)
		set(ir.TunID, 1+r.Uint64N(3))
		set(ir.TunMetadata0, (1+r.Uint64N(5))<<16|pick(r, []uint64{1, 2, 3, 0x8000, 0x8001}))
	} else {
		set(ir.InPort, pick(r, g.ports))
	}
	if r.IntN(8) == 0 {
		set(ir.VLANTCI, 0x1000|r.Uint64N(3))
	}
	ip := func(src, dst ir.Field, pool []ir.U128) {
		p[src], p[dst] = pick(r, pool), pick(r, pool)
		set(ir.IPTTL, pick(r, []uint64{1, 2, 64, 255}))
	}
	v6 := false
	switch n := r.IntN(10); {
	case n == 0:
		set(ir.EthType, 0x0806)
		set(ir.ARPOp, 1+r.Uint64N(2))
		p[ir.ARPSPA], p[ir.ARPTPA] = pick(r, g.v4), pick(r, g.v4)
		p[ir.ARPSHA], p[ir.ARPTHA] = p[ir.EthSrc], pick(r, g.macs)
		return p
	case n == 1:
		set(ir.EthType, 0x88cc)
		return p
	case n < 7:
		set(ir.EthType, 0x0800)
		ip(ir.IPSrc, ir.IPDst, g.v4)
	default:
		v6 = true
		set(ir.EthType, 0x86dd)
		ip(ir.IPv6Src, ir.IPv6Dst, g.v6)
	}
	port := func() uint64 { return pick(r, []uint64{22, 53, 80, 443, 1024, 5432, 40000}) }
	switch r.IntN(4) {
	case 0:
		set(ir.IPProto, 6)
		set(ir.TCPSrc, port())
		set(ir.TCPDst, port())
		set(ir.TCPFlags, pick(r, []uint64{0x02, 0x10, 0x04}))
	case 1:
		set(ir.IPProto, 17)
		set(ir.UDPSrc, port())
		set(ir.UDPDst, port())
	case 2:
		if !v6 {
			set(ir.IPProto, 1)
			set(ir.ICMPType, pick(r, []uint64{0, 8, 3}))
			break
		}
		set(ir.IPProto, 58)
		typ := pick(r, []uint64{128, 129, 135, 136, 133})
		set(ir.ICMPv6Type, typ)
		if typ == 135 || typ == 136 {
			set(ir.IPTTL, 255)
			p[ir.NDTarget] = pick(r, g.v6)
			if typ == 135 {
				p[ir.NDSLL] = p[ir.EthSrc]
			} else {
				p[ir.NDTLL] = p[ir.EthSrc]
			}
		}
	case 3:
		set(ir.IPProto, 132)
		set(ir.SCTPSrc, port())
		set(ir.SCTPDst, port())
	}
	return p
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

// passages runs a packet through the program.
func passages(p *eval.Program, tunnels []uint64, pkt map[ir.Field]ir.U128, states []uint32) ([]passage, error) {
	var in eval.Packet
	for f, v := range pkt {
		in.Set(f, v)
	}
	var all []passage
	var now passage
	_, err := p.Run(in, 0, eval.Options{CT: states, Observe: func(s eval.Step) {
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
	return all, err
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
			now.Outputs = now.Outputs[:len(now.Outputs)-1]
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
func TestEvalAsOfprotoTrace(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for _, c := range append(fixedContents("remote-many", "localport", "routers-chained"),
		content.RandomTopology(rnd.Uint64N(1000)), content.RandomTopology(rnd.Uint64N(1000)), content.RandomACLs(rnd.Uint64N(1000))) {
		t.Run(c.Name, func(t *testing.T) {
			s := install(t, c)
			p, g := s.program(), s.traffic(rnd)
			if len(g.ports) == 0 {
				t.Logf("%s has no port here", c.Name)
				return
			}
			for range 60 {
				pkt := g.packet()
				states := g.states()
				got, err := passages(p, g.tunnels, pkt, states)
				if err != nil {
					t.Fatalf("%s: %v", flowText(pkt), err)
				}
				want, text := s.traced(pkt, states)
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("seed %d, %s, packet %s, states %v (-ofproto/trace +eval):\n%s\n%s", seed, c.Name, flowText(pkt), states, diff, text)
				}
			}
		})
	}
}

// states draws what the connection tracker finds: enough for any packet.
func (g *traffic) states() []uint32 {
	all := make([]uint32, 64)
	for i := range all {
		all[i] = eval.StateTrk | pick(g.rnd, []uint32{
			eval.StateNew, eval.StateEst, eval.StateEst, eval.StateEst | eval.StateRpl, eval.StateNew | eval.StateRel, eval.StateInv,
		})
	}
	return all
}

func fixedContents(names ...string) []content.Content {
	var list []content.Content
	for _, c := range content.Fixed() {
		if slices.Contains(names, c.Name) {
			list = append(list, c)
		}
	}
	return list
}
