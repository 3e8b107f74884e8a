package specialize

import (
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
	"github.com/offloadd/offloadd/pkg/tc"
)

// A Mutant is a specialiser with a mistake, or a NIC that takes some filters and not others: see TestMutants.
type Mutant struct {
	Name     string
	Hardware func(*Filter) bool // a NIC takes it; nil: there is no NIC

	faults  faults
	program func(*Program)          // changes what was made
	filters func([]Filter) []Filter // changes its filters
}

// Filters is Specialize and Program.Filters with the mistake.
func (m *Mutant) Filters(rules *Rules, in Input) []Filter {
	if m.faults.none() {
		m.faults.candidates = func(rules []*Rule) []*Rule { return rules } // from nothing, and nothing is kept
	}
	p := rules.specialize(in, m.faults)
	if m.program != nil {
		m.program(p)
	}
	all := p.Filters()
	if m.filters != nil {
		all = m.filters(all)
	}
	return all
}

// Mutants returns mistakes that are to be noticed. Not all that are possible are among them: some make chains larger but not wrong, and
// some need contents that the topologies lack.
func Mutants() []Mutant {
	return slices.Concat(walkMutants(), programMutants(), filterMutants(), hardwareMutants())
}

// walkMutants make mistakes while they walk.
func walkMutants() []Mutant {
	dead := func(fields ...ir.Field) faults {
		return faults{unread: func(f ir.Field) bool { return slices.Contains(fields, f) }}
	}
	forgotten := func(fields ...ir.Field) faults {
		return faults{forget: func(f ir.Field) bool { return slices.Contains(fields, f) }}
	}
	known := func(same func(s *State, m *machine, is, at position) bool) faults {
		return faults{known: func(m *machine, at position) (found *State) {
			for is, list := range m.states {
				for _, s := range list {
					if is.table == at.table && is.etherType == at.etherType && same(s, m, is, at) && (found == nil || s.ID < found.ID) {
						found = s
					}
				}
			}
			return found
		}}
	}
	// but compares positions as the specialiser does, except for what change makes equal.
	but := func(change func(*position)) faults {
		return known(func(s *State, m *machine, is, at position) bool {
			change(&is)
			change(&at)
			return is == at && s.holds(m)
		})
	}
	return []Mutant{
		{Name: "the smallest priority first", faults: faults{candidates: func(rules []*Rule) []*Rule {
			rules = slices.Clone(rules)
			slices.Reverse(rules)
			return rules
		}}},
		{Name: "neighbouring priorities swapped", faults: faults{candidates: func(rules []*Rule) []*Rule {
			rules = slices.Clone(rules)
			for i := 1; i < len(rules); i++ {
				if rules[i-1].Priority != rules[i].Priority {
					rules[i-1], rules[i] = rules[i], rules[i-1]
					i++
				}
			}
			return rules
		}}},
		{Name: "the first rule of a table left out", faults: faults{candidates: func(rules []*Rule) []*Rule { return rules[min(1, len(rules)):] }}},

		{Name: "liveness: nothing is read", faults: faults{unread: func(ir.Field) bool { return true }}},
		{Name: "liveness: the input port is not read", faults: dead(regInport)},
		{Name: "liveness: the output port is not read", faults: dead(regOutport)},

		{Name: "cube: the destination is forgotten", faults: forgotten(ir.EthDst)},
		{Name: "cube: the source is forgotten", faults: forgotten(ir.EthSrc)},
		{Name: "cube: IP addresses are forgotten", faults: forgotten(ir.IPSrc, ir.IPDst, ir.IPv6Src, ir.IPv6Dst)},
		{Name: "cube: the protocol is forgotten", faults: forgotten(ir.IPProto)},
		{Name: "cube: ports are forgotten", faults: forgotten(ir.TCPDst, ir.UDPDst)},
		{Name: "cube: the connection's mark is forgotten", faults: forgotten(ir.CTMark)},
		{Name: "cube: the connection's label is forgotten", faults: forgotten(ir.CTLabel)},
		{Name: "cube: the network of the tunnel is forgotten", faults: forgotten(ir.TunID)},
		{Name: "cube: the port of the tunnel is forgotten", faults: forgotten(ir.TunMetadata0)},

		{Name: "join: any state at the same place", faults: known(func(_ *State, _ *machine, is, at position) bool { return is == at })},
		{Name: "join: a state that is known of one zone in another", faults: but(func(p *position) { p.zone = 0 })},
		{Name: "join: through a tunnel or not", faults: but(func(p *position) { p.tunnelled = false })},
	}
}

// programMutants make mistakes in the rules of chains.
func programMutants() []Mutant {
	// leaves changes every rule; one for which f is false goes.
	leaves := func(f func(l *Leaf) bool) func(*Program) {
		return func(p *Program) {
			each(p, func(rules *[]Leaf) {
				kept := (*rules)[:0]
				for _, l := range *rules {
					if f(&l) {
						kept = append(kept, l)
					}
				}
				*rules = kept
			})
		}
	}
	output := func(f func(o *Output)) func(*Program) {
		return leaves(func(l *Leaf) bool {
			if o, is := l.Verdict.(*Output); is {
				copied := *o
				if o.Encap != nil {
					encap := *o.Encap
					copied.Encap = &encap
				}
				copied.Edits = slices.Clone(o.Edits)
				f(&copied)
				l.Verdict = &copied
			}
			return true
		})
	}
	edit := func(field ir.Field) func(*Program) {
		return output(func(o *Output) { o.Edits = slices.DeleteFunc(o.Edits, func(e Edit) bool { return e.Field == field }) })
	}
	punts := func(reason Reason) func(*Program) {
		return leaves(func(l *Leaf) bool { return reasonOf(l.Verdict) != reason })
	}
	guard := func(reason Reason) func(*Program) {
		return func(p *Program) {
			p.Guards = slices.DeleteFunc(slices.Clone(p.Guards), func(g Guard) bool { return g.Reason == reason })
		}
	}
	return []Mutant{
		{Name: "guards: fragments are not punted", program: guard(Fragments)},
		{Name: "guards: multicast is not punted", program: guard(Multicast)},
		{Name: "guards: a short TTL is not punted", program: guard(ShortTTL)},
		{Name: "guards: none", program: func(p *Program) { p.Guards = nil }},

		{Name: "punts: what commits", program: punts(Commits)},
		{Name: "punts: none but the last", program: leaves(func(l *Leaf) bool { _, punt := l.Verdict.(Punt); return !punt })},
		{Name: "order: all rules are equal", program: leaves(func(l *Leaf) bool { l.level = 0; return true })},
		{Name: "order: levels are reversed", program: leaves(func(l *Leaf) bool { l.level = 1000 - l.level; return true })},

		{Name: "output: the TTL stays", program: output(func(o *Output) { o.DecTTL = 0 })},
		{Name: "output: the destination stays", program: edit(ir.EthDst)},
		{Name: "output: the source stays", program: edit(ir.EthSrc)},
		{Name: "output: the DSCP stays", program: edit(ir.IPDSCP)},
		{Name: "output: the checksum stays", program: output(func(o *Output) { o.CSumIP = false })},
		{Name: "output: the tunnel is kept", program: output(func(o *Output) { o.Unset = false })},
		{Name: "output: another network", program: output(func(o *Output) {
			if o.Encap != nil {
				o.Encap.VNI++
			}
		})},
		{Name: "output: without the input port", program: output(func(o *Output) {
			if o.Encap != nil {
				o.Encap.Option &= 0xffff
			}
		})},
		{Name: "output: another device", program: func(p *Program) {
			for name := range p.Devices {
				p.Devices[name]++
			}
		}},

		{Name: "lookup: in another zone", program: leaves(func(l *Leaf) bool {
			if v, is := l.Verdict.(Lookup); is {
				l.Verdict = Lookup{v.Zone + 1, v.State}
			}
			return true
		})},
		{Name: "lookup: in a state of another path", program: func(p *Program) {
			leaves(func(l *Leaf) bool {
				if v, is := l.Verdict.(Lookup); is {
					for _, s := range p.States {
						if s != v.State && s.Zone == v.Zone && s.Tracked && s.EtherType == v.State.EtherType {
							v.State = s
						}
					}
					l.Verdict = v
				}
				return true
			})(p)
		}},
		{Name: "all chains are one", program: func(p *Program) {
			for _, s := range p.States {
				s.Chain = ChainBase
			}
		}},
	}
}

// each calls f with the rules of all chains.
func each(p *Program, f func(rules *[]Leaf)) {
	for _, e := range p.Entries {
		f(&e.Rules)
	}
	for _, s := range p.States {
		f(&s.Rules)
	}
}

// filterMutants make mistakes when they lower rules to filters.
func filterMutants() []Mutant {
	unmatched := func(fields ...ir.Field) func([]Filter) []Filter {
		return func(all []Filter) []Filter {
			for i := range all {
				if all[i].Kind != KindGuard {
					all[i].Match = slices.DeleteFunc(slices.Clone(all[i].Match), func(t ir.Term) bool { return slices.Contains(fields, t.Field) })
				}
			}
			return all
		}
	}
	return []Mutant{
		{Name: "filters: no ip_proto beside ports", filters: unmatched(ir.IPProto)},
		{Name: "filters: no ct_zone", filters: unmatched(ir.CTZone)},
		{Name: "filters: no ct_state", filters: unmatched(ir.CTState)},
		{Name: "filters: no VNI", filters: unmatched(ir.TunID)},
		{Name: "filters: no Geneve option", filters: unmatched(ir.TunMetadata0)},
		{Name: "filters: no device", filters: func(all []Filter) []Filter {
			for i := range all {
				all[i].Indev = ""
			}
			return all
		}},
		{Name: "filters: chains without an end", filters: func(all []Filter) []Filter {
			return slices.DeleteFunc(all, func(f Filter) bool { return f.Kind == KindEnd })
		}},
		{Name: "filters: passed with the connection", filters: func(all []Filter) []Filter {
			for i := range all {
				if a := all[i].Actions; len(a) == 2 && a[0] == tc.Action(tc.CT{Clear: true}) && a[1] == tc.Action(tc.Pass{}) {
					all[i].Actions = a[1:]
				}
			}
			return all
		}},
	}
}

// hardwareMutants are NICs that do not take what they would have to. A filter that is not in hardware does not keep packets from
// those that come after it.
func hardwareMutants() []Mutant {
	asks := func(f *Filter, fields ...ir.Field) bool {
		return slices.ContainsFunc(f.Match, func(t ir.Term) bool { return slices.Contains(fields, t.Field) })
	}
	return []Mutant{
		{Name: "hardware: no fragments", Hardware: func(f *Filter) bool { return !asks(f, ir.IPFrag) }},
		{Name: "hardware: no TTL", Hardware: func(f *Filter) bool { return !asks(f, ir.IPTTL) }},
		{Name: "hardware: no ICMP types", Hardware: func(f *Filter) bool { return !asks(f, ir.ICMPType, ir.ICMPv6Type) }},
		{Name: "hardware: no punts before rules", Hardware: func(f *Filter) bool {
			_, drops := f.Actions[len(f.Actions)-1].(tc.Pass)
			return !drops || f.Kind == KindEnd
		}},
		{Name: "hardware: no drops", Hardware: func(f *Filter) bool { _, drops := f.Actions[len(f.Actions)-1].(tc.Drop); return !drops }},
		{Name: "hardware: no rewriting", Hardware: func(f *Filter) bool {
			return !slices.ContainsFunc(f.Actions, func(a tc.Action) bool { _, is := a.(tc.Pedit); return is })
		}},
	}
}
