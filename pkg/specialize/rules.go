package specialize

import (
	"cmp"
	"reflect"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// An Owner is who asks for a rule: a row, and which part of what it asks for.
type Owner struct {
	Row  [16]byte
	Part uint32
}

// A Rule is a rule of the program and who asks for it.
type Rule struct {
	ir.Rule
	Owner Owner

	conj []ir.Conjunction // what its actions are, if they are conjunctions and nothing else
	// conjID is the conjunctive match that the rule asks for, if it asks for one.
	conjID uint32
	isConj bool
}

// Rules is the program of a bridge as it changes: the rules of each owner, indexed for the walk. The zero Rules is not
// ready; use NewRules.
type Rules struct {
	owners map[Owner][]*Rule
	tables [256]table
	// learns counts, by table, the rules that make the switch learn flows into it.
	learns [256]int
	// complete, while not nil, holds the owners that a complete program has named so far.
	complete map[Owner]struct{}

	// What the last walk has found, for IPv4 and IPv6, what it was for, and what has changed since.
	memos   [2]*memo
	node    node
	devices map[uint16]any
	changed map[source]struct{}
}

// NewRules returns a program without rules.
func NewRules() *Rules { return &Rules{owners: map[Owner][]*Rule{}, changed: map[source]struct{}{}} }

// Begin says that the program is told from the beginning: until End, who is not named by Replace has no rules.
func (p *Rules) Begin() { p.complete = map[Owner]struct{}{} }

// End ends what Begin began.
func (p *Rules) End() {
	if p.complete == nil {
		return
	}
	for o := range p.owners {
		if _, named := p.complete[o]; !named {
			p.replace(o, nil)
		}
	}
	p.complete = nil
}

// Replace gives an owner other rules, which must not be changed afterwards.
func (p *Rules) Replace(o Owner, rules []ir.Rule) {
	if p.complete != nil {
		p.complete[o] = struct{}{}
	}
	if !p.has(o, rules) { // a row is compiled anew for columns too that no rule depends on
		p.replace(o, rules)
	}
}

// has reports whether an owner has these rules already.
func (p *Rules) has(o Owner, rules []ir.Rule) bool {
	return slices.EqualFunc(p.owners[o], rules, func(r *Rule, x ir.Rule) bool { return reflect.DeepEqual(r.Rule, x) })
}

func (p *Rules) replace(o Owner, rules []ir.Rule) {
	for _, r := range p.owners[o] {
		p.changes(r, (*table).remove)
		p.learn(r.Actions, -1)
	}
	delete(p.owners, o)
	if len(rules) == 0 {
		return
	}
	own := make([]*Rule, len(rules))
	for i := range rules {
		r := &Rule{Rule: rules[i], Owner: o, conj: conjunctions(rules[i].Actions)}
		if t, ok := r.Match.Term(ir.ConjID); ok {
			r.conjID, r.isConj = uint32(t.Value.Lo), true
		}
		own[i] = r
		p.changes(r, (*table).add)
		p.learn(r.Actions, 1)
	}
	p.owners[o] = own
}

// changes adds or removes a rule, and notes what changes by it.
func (p *Rules) changes(r *Rule, by func(*table, *Rule)) {
	t, of := &p.tables[r.Table], primaryOf(r.Match)
	before := t.primaries[of.field] > 0
	by(t, r)
	p.touch(source{bucketSource, r.Table, of})
	if after := t.primaries[of.field] > 0; after != before {
		p.touch(source{indexSource, r.Table, primary{field: of.field}})
	}
}

// learn counts the learn actions of a list.
func (p *Rules) learn(actions []ir.Action, n int) {
	for _, a := range actions {
		switch a := a.(type) {
		case ir.Learn:
			p.learns[a.Table] += n
		case ir.Clone:
			p.learn(a.Actions, n)
		}
	}
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

// A table is the rules of a table by what nearly all of them ask for: the datapath, or in the first table the OpenFlow port,
// and then the logical output or input port.
type table struct {
	buckets map[primary]*bucket
	// primaries counts the buckets by what they ask for.
	primaries map[ir.Field]int
	// secondaries counts the rules by the logical port that they ask for.
	secondaries map[ir.Field]int
}

// primary is what a rule asks of metadata or in_port, if it asks for the whole of it.
type primary struct {
	field ir.Field // 0: neither
	value uint64
}

func primaryOf(m ir.Match) primary {
	for _, f := range [...]ir.Field{ir.Metadata, ir.InPort} {
		if t, ok := m.Term(f); ok && t.Mask == f.Ones() {
			return primary{f, t.Value.Lo}
		}
	}
	return primary{}
}

func (t *table) add(r *Rule) {
	if t.buckets == nil {
		t.buckets, t.primaries, t.secondaries = map[primary]*bucket{}, map[ir.Field]int{}, map[ir.Field]int{}
	}
	key := primaryOf(r.Match)
	b := t.buckets[key]
	if b == nil {
		b = &bucket{rules: map[secondary][]*Rule{}}
		t.buckets[key] = b
		t.primaries[key.field]++
	}
	b.add(r)
	t.secondaries[secondaryOf(r.Match).field]++
}

func (t *table) remove(r *Rule) {
	key := primaryOf(r.Match)
	b := t.buckets[key]
	b.remove(r)
	t.secondaries[secondaryOf(r.Match).field]--
	if len(b.rules) == 0 {
		delete(t.buckets, key)
		t.primaries[key.field]--
	}
}

// A bucket is the rules of a table that ask for the same datapath.
type bucket struct {
	rules  map[secondary][]*Rule // each list sorted when it is not dirty
	dirty  map[secondary]struct{}
	byPort map[ir.Field]int // how many rules ask for a port in that register
}

// secondary is what a rule asks of the logical output or input port, if it asks for the whole of it.
type secondary struct {
	field ir.Field // 0: neither
	value uint32
}

// The registers of the logical output and input port; see ovn-architecture(7).
const (
	regOutport = ir.Reg15
	regInport  = ir.Reg14
	regZone    = ir.Reg13 // of the logical port
)

func secondaryOf(m ir.Match) secondary {
	for _, f := range [...]ir.Field{regOutport, regInport} {
		if t, ok := m.Term(f); ok && t.Mask == f.Ones() {
			return secondary{f, uint32(t.Value.Lo)}
		}
	}
	return secondary{}
}

func (b *bucket) add(r *Rule) {
	key := secondaryOf(r.Match)
	b.rules[key] = append(b.rules[key], r)
	if b.dirty == nil {
		b.dirty = map[secondary]struct{}{}
	}
	b.dirty[key] = struct{}{}
	if b.byPort == nil {
		b.byPort = map[ir.Field]int{}
	}
	b.byPort[key.field]++
}

func (b *bucket) remove(r *Rule) {
	key := secondaryOf(r.Match)
	list := b.rules[key]
	i := slices.Index(list, r)
	list = slices.Delete(list, i, i+1)
	b.rules[key] = list
	if len(list) == 0 {
		delete(b.rules, key)
		delete(b.dirty, key)
	}
	b.byPort[key.field]--
}

// sort puts all lists of rules in order, after which walks may read them at the same time.
func (p *Rules) sort() {
	for i := range p.tables {
		for _, b := range p.tables[i].buckets {
			for key := range b.dirty {
				slices.SortStableFunc(b.rules[key], compareRules)
			}
			clear(b.dirty)
		}
	}
}

// compareRules orders rules as they are looked up, and among those with the same key the one that is installed first: see
// Builder.Program in pkg/eval.
func compareRules(a, b *Rule) int {
	return cmp.Or(
		cmp.Compare(b.Priority, a.Priority),
		slices.CompareFunc(a.Match, b.Match, func(s, t ir.Term) int {
			return cmp.Or(cmp.Compare(s.Field, t.Field), s.Mask.Cmp(t.Mask), s.Value.Cmp(t.Value))
		}),
		cmp.Compare(a.class(), b.class()),
		cmp.Compare(a.Cookie, b.Cookie),
	)
}

func (r *Rule) class() int {
	switch {
	case r.conj != nil:
		return 2
	case len(r.Actions) == 0:
		return 1
	default:
		return 0
	}
}
