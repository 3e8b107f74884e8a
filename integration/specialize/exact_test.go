package specialize

import (
	"fmt"
	"maps"
	"slices"

	"github.com/offloadd/offloadd/integration/specialize/topology"
	"github.com/offloadd/offloadd/pkg/eval"
	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// exact is a specialiser that has seen the packets before: it runs them through the rules and makes filters that match each of
// them as a whole. It shows that the judge lets pass what is right.
func exact(b *Bench, first uint64, n int) Program {
	e := exactMaker{b: b, nextChain: 0x0e000000}
	var order []string
	equal := map[string][]uint64{} // numbers, by what flower sees of their packets
	for number := first; number < first+uint64(n); number++ {
		a, _ := b.packet(number)
		m, protocol, ok := exactMatch(&a.packet)
		if !ok {
			continue
		}
		key := fmt.Sprintf("%v %v %v", a.from, protocol, m)
		if equal[key] == nil {
			order = append(order, key)
		}
		equal[key] = append(equal[key], number)
	}
	for _, key := range order {
		e.packet(equal[key])
	}
	return Program{
		Filters: append(e.filters, tc.Filter{Pref: 1000, Handle: 1, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.Pass{}}}),
		Why: func(f *tc.Filter) string {
			if f.Chain == 0 {
				return "packet"
			}
			return "connection"
		},
	}
}

type exactMaker struct {
	b         *Bench
	filters   []tc.Filter
	nextChain uint32
	handle    uint32
}

// A lookup is one of the connection tracker.
type lookup struct {
	zone uint16
	nat  bool
	conn eval.Conn
	came eval.Packet // as the tracker sends it back
}

// A story is what becomes of a packet in one variant.
type story struct {
	lookups []lookup
	ok      bool // filters can do the same
	actions []tc.Action
}

// packet makes filters for the packet that some numbers have.
func (e *exactMaker) packet(numbers []uint64) {
	a, _ := e.b.packet(numbers[0])
	m, protocol, _ := exactMatch(&a.packet)
	var stories []story
	for _, number := range numbers {
		stories = append(stories, e.story(number))
	}
	before := len(e.filters)
	hole := e.node(0, tc.Filter{Protocol: protocol, Indev: a.from.Device, EncDstPort: a.from.EncDstPort, Match: m}, stories, 0)
	if hole {
		e.filters = e.filters[:before] // what a lookup has translated cannot be passed to Open vSwitch any more
	}
}

// story runs a packet through the rules.
func (e *exactMaker) story(number uint64) (s story) {
	a, track := e.b.packet(number)
	var asked []bool // whether the lookups ask for translation, in order
	inPass, simple := 0, true
	r, err := e.b.rules.Run(a.packet, 0, eval.Options{
		Length: a.length,
		Track: func(zone uint16, p *eval.Packet) eval.Conn {
			c := track(zone, p)
			s.lookups = append(s.lookups, lookup{zone: zone, conn: c})
			return c
		},
		Observe: func(st eval.Step) {
			switch st.Kind { //nolint:exhaustive // the others do not matter
			case eval.Act:
				switch act := st.Action.(type) {
				case ir.CT:
					if act.Table != ir.NoTable {
						asked = append(asked, act.NAT != nil)
						inPass++
						simple = simple && inPass == 1 && (act.NAT == nil || act.NAT.AddrMin.IsZero())
					}
				case ir.CheckPktLarger:
					simple = false
				}
			case eval.Resume:
				inPass = 0
				l := &s.lookups[len(s.lookups)-1]
				l.nat, l.came = asked[len(s.lookups)-1], *st.Packet
				// Flower sees less of these than the rules.
				simple = simple && (l.conn.State&eval.StateRel == 0)
			}
		},
	})
	if err != nil || !simple || effects(r) != "" || len(r.Outputs) > 1 || len(s.lookups) > 0 && !a.packet.Value(ir.IPFrag).IsZero() {
		return s
	}
	if len(r.Outputs) == 0 {
		s.actions, s.ok = []tc.Action{tc.Drop{}}, true
		return s
	}
	last := a.packet
	if n := len(s.lookups); n > 0 {
		last = s.lookups[n-1].came
	}
	for _, l := range s.lookups {
		// Addresses that the rules rewrite before a lookup would have to be rewritten by a filter before the same lookup.
		for _, f := range tupleFields {
			translated := slices.ContainsFunc(s.lookups, func(l lookup) bool { return l.nat && len(l.conn.NAT) > 0 })
			if !translated && l.came.Value(f) != a.packet.Value(f) {
				return s
			}
		}
	}
	s.actions, s.ok = e.output(&a, &last, &r.Outputs[0])
	return s
}

// output returns actions that make the packet of an output of what came from the last lookup, and send it.
func (e *exactMaker) output(a *arrival, last *eval.Packet, o *eval.Output) (acts []tc.Action, ok bool) {
	t := e.b.Topology
	var edits []tc.Edit
	for f := ir.EthSrc; f < ir.TunID; f++ {
		now := o.Packet.Value(f)
		// What the last lookup gives back has been rewritten before it in the rules, but not by the filters.
		before := a.packet.Value(f)
		if slices.Contains(tupleFields, f) {
			before = last.Value(f)
		}
		if now == before {
			continue
		}
		switch f { //nolint:exhaustive // nothing else is rewritten
		case ir.EthSrc, ir.EthDst, ir.IPTTL, ir.IPDSCP, ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst, ir.TCPSrc, ir.TCPDst, ir.UDPSrc, ir.UDPDst:
			edits = append(edits, tc.Edit{Field: f, Value: now, Mask: f.Ones()})
		default:
			return nil, false
		}
	}
	if len(o.Packet.Inner()) != len(a.packet.Inner()) {
		return nil, false
	}
	if a.from.EncDstPort != 0 {
		acts = append(acts, tc.TunnelUnset{})
	}
	if len(edits) > 0 {
		acts = append(acts, tc.Pedit{Edits: edits}, tc.CSum{IPv4: true, TCP: true, UDP: true, ICMP: true, SCTP: true})
	}
	if mark := o.Packet.Value(ir.PktMark); !mark.IsZero() {
		acts = append(acts, tc.SkbEdit{Mark: uint32(mark.Lo), MarkMask: ^uint32(0)})
	}
	for _, p := range t.Ports {
		if uint32(p.OFPort) == o.Port {
			return append(acts, tc.Mirred{Ifindex: p.Device.Ifindex}), true
		}
	}
	for _, x := range t.Tunnels {
		if uint32(x.OFPort) == o.Port && x.Type == "geneve" {
			data := o.Packet.Value(t.Geneve).Bytes16()
			return append(acts, tc.TunnelSet{
				ID: uint32(o.Packet.Value(ir.TunID).Lo), Src: x.Local, Dst: x.Remote, DstPort: genevePort, TTL: tunnelTTL,
				Options: []tc.GeneveOption{{Class: tc.OptionClass, Type: tc.OptionType, Data: string(data[12:])}},
			}, tc.Mirred{Ifindex: t.TunnelDevice.Ifindex}), true
		}
	}
	return nil, false
}

// translated reports whether one of some packets may be another one after n lookups.
func translated(stories []story, n int) bool {
	return slices.ContainsFunc(stories, func(s story) bool {
		return slices.ContainsFunc(s.lookups[:n], func(l lookup) bool { return l.nat && l.conn.State&(eval.StateEst|eval.StateRel) != 0 })
	})
}

// node makes the filters for stories that have been the same for some lookups: f says of which packets they are. It reports a hole:
// a packet that they do not decide about and that cannot be passed to Open vSwitch any more.
func (e *exactMaker) node(chain uint32, f tc.Filter, stories []story, done int) (hole bool) {
	f.Chain, f.Pref = chain, prefs[f.Protocol]
	e.handle++
	f.Handle = e.handle
	if f.Pref == 0 || !slices.ContainsFunc(stories, func(s story) bool { return s.ok }) {
		return translated(stories, done)
	}
	if len(stories[0].lookups) == done {
		for _, s := range stories {
			if !s.ok || fmt.Sprint(s.actions) != fmt.Sprint(stories[0].actions) {
				return translated(stories, done)
			}
		}
		f.Actions = stories[0].actions
		e.filters = append(e.filters, f)
		return false
	}
	l := stories[0].lookups[done]
	next := e.nextChain
	e.nextChain++
	f.Actions = []tc.Action{tc.CT{Zone: l.zone, NAT: l.nat}, tc.Goto{Chain: next}}
	e.filters = append(e.filters, f)
	by := map[string][]story{}
	matches := map[string]ir.Match{}
	for _, s := range stories {
		m := seenMatch(&s.lookups[done], f.Protocol == tc.ProtocolVLAN)
		key := fmt.Sprint(m)
		by[key], matches[key] = append(by[key], s), m
	}
	for _, k := range slices.Sorted(maps.Keys(by)) {
		hole = e.node(next, tc.Filter{Protocol: f.Protocol, Match: matches[k]}, by[k], done+1) || hole
	}
	e.handle++
	e.filters = append(e.filters, tc.Filter{
		Chain: next, Pref: 1000, Handle: e.handle, Protocol: tc.ProtocolAll, Actions: []tc.Action{tc.CT{Clear: true}, tc.Pass{}},
	})
	return hole
}

var prefs = map[uint16]uint16{tc.ProtocolIPv4: 1, tc.ProtocolIPv6: 2, tc.ProtocolARP: 3, tc.ProtocolVLAN: 4, 0x1234: 5, 0x88cc: 6}

// seenMatch is what a filter can know of a lookup: the connection and, if it was translated, the addresses. tagged says that the
// filter's packets have a tag, also when the pipeline has removed it by then.
func seenMatch(l *lookup, tagged bool) ir.Match {
	state := uint64(l.conn.State)&(eval.StateNew|eval.StateEst|eval.StateRpl|eval.StateRel|eval.StateInv) | eval.StateTrk
	if state&eval.StateInv != 0 {
		state = eval.StateInv | eval.StateTrk
	}
	m, _ := ir.Match{}.With(ir.CTState, ir.U64(state), ir.U64(0x3f))
	m, _ = m.With(ir.CTZone, ir.U64(uint64(l.zone)), ir.CTZone.Ones())
	m, _ = m.With(ir.CTMark, l.came.Value(ir.CTMark), ir.CTMark.Ones())
	m, _ = m.With(ir.CTLabel, l.came.Value(ir.CTLabel), ir.CTLabel.Ones())
	if !l.nat {
		return m
	}
	p := l.came
	for _, f := range append([]ir.Field{ir.IPProto}, tupleFields...) {
		if has(&p, f) || f == ir.IPProto {
			m, _ = m.With(f, p.Value(f), f.Ones())
		}
	}
	if tagged {
		m, _ = m.With(ir.EthType, p.Value(ir.EthType), ir.EthType.Ones())
	}
	return m
}

// exactMatch matches a packet as a whole. It reports false for one that flower cannot tell from others.
func exactMatch(p *eval.Packet) (m ir.Match, protocol uint16, ok bool) {
	protocol = uint16(p.Value(ir.EthType).Lo)
	with := func(f ir.Field) { m, _ = m.With(f, p.Value(f), f.Ones()) }
	if !p.Value(ir.VLANTCI).IsZero() {
		protocol = tc.ProtocolVLAN
		with(ir.VLANTCI)
		with(ir.EthType)
	}
	const request, reply = 1, 2
	op := p.Value(ir.ARPOp).Lo
	if !p.Value(ir.IPv6Label).IsZero() || !p.Value(ir.NDTarget).IsZero() || op != 0 && op != request && op != reply {
		return nil, 0, false
	}
	for f := ir.EthSrc; f < ir.TunID; f++ {
		if has(p, f) && f != ir.ICMPv6Code && (p.Value(ir.IPFrag).IsZero() || f < ir.TCPSrc) {
			with(f)
		}
	}
	if typ := p.Value(ir.EthType).Lo; typ == etherTypeIPv4 || typ == etherTypeIPv6 {
		with(ir.IPProto)
		with(ir.IPFrag)
		if !p.Value(ir.IPFrag).IsZero() && p.Value(ir.IPFrag).Lo == 1 {
			return nil, 0, false // it has ports that flower does not see
		}
		if typ == etherTypeIPv6 && p.Value(ir.IPProto).Lo == protoICMPv6 && p.Value(ir.IPFrag).IsZero() {
			with(ir.ICMPv6Type)
			with(ir.ICMPv6Code)
		}
	}
	for _, f := range []ir.Field{ir.TunID, ir.TunSrc, ir.TunDst, ir.TunIPv6Src, ir.TunIPv6Dst, ir.TunMetadata0} {
		if !p.Value(f).IsZero() {
			with(f)
		}
	}
	return m, protocol, true
}

// mutants are ways to get filters wrong.
var mutants = map[string]func(f *tc.Filter, t *topology.Topology){
	"the TTL stays":         edits(func(e tc.Edit) (tc.Edit, bool) { return e, e.Field != ir.IPTTL }),
	"the MAC address stays": edits(func(e tc.Edit) (tc.Edit, bool) { return e, e.Field != ir.EthDst }),
	"another port": replaced(func(a tc.Mirred, t *topology.Topology) tc.Action {
		if a.Ifindex != t.TunnelDevice.Ifindex {
			a.Ifindex++
		}
		return a
	}),
	"into the stack":     replaced(func(a tc.Mirred, _ *topology.Topology) tc.Action { a.Ingress = true; return a }),
	"a copy":             replaced(func(a tc.Mirred, _ *topology.Topology) tc.Action { a.Mirror = true; return a }),
	"the tunnel is kept": replaced(func(tc.TunnelUnset, *topology.Topology) tc.Action { return nil }),
	"another network":    replaced(func(a tc.TunnelSet, _ *topology.Topology) tc.Action { a.ID++; return a }),
	"no option":          replaced(func(a tc.TunnelSet, _ *topology.Topology) tc.Action { a.Options = nil; return a }),
	"another chassis":    replaced(func(a tc.TunnelSet, _ *topology.Topology) tc.Action { a.Dst = a.Dst.Next(); return a }),
	"a tunnel with TTL 0": replaced(func(a tc.TunnelSet, _ *topology.Topology) tc.Action {
		a.TTL = 0
		return a
	}),
	"checksums stay": replaced(func(tc.CSum, *topology.Topology) tc.Action { return nil }),
	"passed with its connection": replaced(func(a tc.CT, _ *topology.Topology) tc.Action {
		if a.Clear {
			return nil
		}
		return a
	}),
	"connections are committed": replaced(func(a tc.CT, _ *topology.Topology) tc.Action { a.Commit = !a.Clear; return a }),
	"nothing is translated":     replaced(func(a tc.CT, _ *topology.Topology) tc.Action { a.NAT = false; return a }),
	"another zone":              replaced(func(a tc.CT, _ *topology.Topology) tc.Action { a.Zone ^= 5; return a }),
	"dropped instead of passed": replaced(func(tc.Pass, *topology.Topology) tc.Action { return tc.Drop{} }),
	"passed instead of dropped after a rewrite": func(f *tc.Filter, _ *topology.Topology) {
		if n := len(f.Actions); n > 0 && f.Actions[n-1] == tc.Action(tc.Pass{}) {
			f.Actions = append([]tc.Action{tc.SkbEdit{Mark: 5, MarkMask: 5}}, f.Actions...)
		}
	},
	"chains end": func(f *tc.Filter, _ *topology.Topology) {
		if f.Chain != 0 && f.Protocol == tc.ProtocolAll {
			f.Match = ir.Match{}.Eq(ir.EthDst, 0x123456789abc)
		}
	},
	"any mark":       unmatched(ir.CTMark),
	"any label":      unmatched(ir.CTLabel),
	"any state":      unmatched(ir.CTState),
	"any TTL":        unmatched(ir.IPTTL),
	"no IP protocol": unmatched(ir.IPProto),
	"any source":     unmatched(ir.EthSrc, ir.IPSrc, ir.IPv6Src),
	"any tunnel":     unmatched(ir.TunID, ir.TunMetadata0, ir.TunSrc),
	"any device":     func(f *tc.Filter, _ *topology.Topology) { f.Indev = "" },
}

// mutated returns p with a mistake in it.
func mutated(p Program, t *topology.Topology, mutation func(*tc.Filter, *topology.Topology)) Program {
	filters := slices.Clone(p.Filters)
	for i := range filters {
		filters[i].Match, filters[i].Actions = slices.Clone(filters[i].Match), slices.Clone(filters[i].Actions)
		mutation(&filters[i], t)
	}
	p.Filters = filters
	return p
}

func replaced[A tc.Action](f func(A, *topology.Topology) tc.Action) func(*tc.Filter, *topology.Topology) {
	return func(filter *tc.Filter, t *topology.Topology) {
		var acts []tc.Action
		for _, a := range filter.Actions {
			if is, ok := a.(A); ok {
				if a = f(is, t); a == nil {
					continue
				}
			}
			acts = append(acts, a)
		}
		filter.Actions = acts
	}
}

func edits(keep func(tc.Edit) (tc.Edit, bool)) func(*tc.Filter, *topology.Topology) {
	return replaced(func(a tc.Pedit, _ *topology.Topology) tc.Action {
		var kept []tc.Edit
		for _, e := range a.Edits {
			if e, ok := keep(e); ok {
				kept = append(kept, e)
			}
		}
		return tc.Pedit{Edits: kept}
	})
}

func unmatched(fields ...ir.Field) func(*tc.Filter, *topology.Topology) {
	return func(f *tc.Filter, _ *topology.Topology) {
		f.Match = slices.DeleteFunc(f.Match, func(t ir.Term) bool { return slices.Contains(fields, t.Field) })
	}
}
