package eval

import (
	"cmp"
	"iter"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// An Owner is who asks for a rule: a row, and which part of what it asks for. eval only passes it on.
type Owner struct {
	Row  [16]byte
	Part uint32
}

// A Rule is a rule of a Program and who asks for it.
type Rule struct {
	ir.Rule
	Owner Owner

	// conj is what the rule's actions are if they are conjunctions and nothing else.
	conj []ir.Conjunction
}

// A Program is the rules of a bridge, by table, and its groups. It does not change, and may be used by several goroutines.
type Program struct {
	tables [256]table
	groups map[uint32]ir.SelectGroup
}

// A table is rules, the largest priority first. Those that want a certain metadata, which are nearly all of them, are
// apart from the others, by what they want.
type table struct {
	by     map[ir.U128][]*Rule
	others []*Rule
}

func newTable(rules []*Rule) table {
	t := table{by: map[ir.U128][]*Rule{}}
	for _, r := range rules {
		if m, ok := r.Match.Term(ir.Metadata); ok && m.Mask == ir.Metadata.Ones() {
			t.by[m.Value] = append(t.by[m.Value], r)
		} else {
			t.others = append(t.others, r)
		}
	}
	return t
}

// matching yields the rules that match pkt, the largest priority first.
func (t *table) matching(pkt *Packet) iter.Seq[*Rule] {
	return func(yield func(*Rule) bool) {
		a, b := t.by[pkt.Value(ir.Metadata)], t.others
		for len(a)+len(b) > 0 {
			next := &a
			if len(a) == 0 || len(b) > 0 && b[0].Priority > a[0].Priority {
				next = &b
			}
			r := (*next)[0]
			*next = (*next)[1:]
			if pkt.Satisfies(r.Match) && !yield(r) {
				return
			}
		}
	}
}

// A Builder collects the rules of a Program. The zero Builder has none.
type Builder struct {
	rules  [256][]*Rule
	groups map[uint32]ir.SelectGroup
}

// Add adds rules and groups. It keeps them; they must not change afterwards.
func (b *Builder) Add(owner Owner, rules []ir.Rule, groups map[uint32]ir.SelectGroup) {
	for _, r := range rules {
		b.rules[r.Table] = append(b.rules[r.Table], &Rule{Rule: r, Owner: owner, conj: conjunctions(r.Actions)})
	}
	for id, g := range groups {
		if b.groups == nil {
			b.groups = map[uint32]ir.SelectGroup{}
		}
		b.groups[id] = g
	}
}

// Program returns the program of everything that was added. The Builder must not be used any more.
//
// Of rules with the same table, priority and match one is left, as on the bridge: one that does something wins over one that
// drops, and that over members of conjunctions, which are united; among equals the smallest cookie wins.
func (b *Builder) Program() *Program {
	p := &Program{groups: b.groups}
	for t, rules := range b.rules {
		slices.SortStableFunc(rules, func(x, y *Rule) int {
			return cmp.Or(cmp.Compare(y.Priority, x.Priority), compareMatch(x.Match, y.Match), x.rank(y))
		})
		kept := rules[:0]
		for _, r := range rules {
			if n := len(kept); n > 0 && kept[n-1].Priority == r.Priority && kept[n-1].Match.Equal(r.Match) {
				if first := kept[n-1]; first.conj != nil {
					first.conj = append(first.conj, r.conj...)
				}
				continue
			}
			kept = append(kept, r)
		}
		p.tables[t] = newTable(kept)
	}
	return p
}

// rank orders rules with the same key, the winner first.
func (r *Rule) rank(o *Rule) int {
	class := func(r *Rule) int {
		switch {
		case r.conj != nil:
			return 2
		case len(r.Actions) == 0:
			return 1
		default:
			return 0
		}
	}
	return cmp.Or(cmp.Compare(class(r), class(o)), cmp.Compare(r.Cookie, o.Cookie))
}

func conjunctions(actions []ir.Action) []ir.Conjunction {
	var all []ir.Conjunction
	for _, a := range actions {
		c, ok := a.(ir.Conjunction)
		if !ok {
			return nil
		}
		all = append(all, c)
	}
	return all
}

func compareMatch(a, b ir.Match) int {
	return slices.CompareFunc(a, b, func(s, t ir.Term) int {
		return cmp.Or(cmp.Compare(s.Field, t.Field), s.Mask.Cmp(t.Mask), s.Value.Cmp(t.Value))
	})
}

// Lookup returns the rule of table that pkt meets, and nil if there is none. See "Conjunctive Match Fields" in ovs-fields(7).
func (p *Program) Lookup(table uint8, pkt *Packet) *Rule {
	var members []*Rule // of conjunctions, of one priority
	for r := range p.tables[table].matching(pkt) {
		if len(members) > 0 && members[0].Priority > r.Priority {
			if met := p.conjunction(table, pkt, members); met != nil {
				return met
			}
			members = nil
		}
		if r.conj == nil {
			return r
		}
		members = append(members, r)
	}
	return p.conjunction(table, pkt, members)
}

// conjunction returns the rule for a conjunction that members complete, and nil if there is none.
func (p *Program) conjunction(table uint8, pkt *Packet, members []*Rule) *Rule {
	for _, id := range complete(members) {
		with := *pkt
		with.Set(ir.ConjID, ir.U64(uint64(id)))
		for r := range p.tables[table].matching(&with) {
			if r.conj == nil {
				return r
			}
		}
	}
	return nil
}

// complete returns, in order, the conjunctions that have a member in each of their dimensions.
func complete(members []*Rule) []uint32 {
	clauses := map[uint32]uint64{} // a bit for each dimension that is satisfied
	var ids []uint32
	for _, r := range members {
		for _, c := range r.conj {
			before := clauses[c.ID]
			now := before | 1<<c.Clause
			clauses[c.ID] = now
			if all := ir.Ones(int(c.N)).Lo; now == all && before != all {
				ids = append(ids, c.ID)
			}
		}
	}
	slices.Sort(ids)
	return ids
}
