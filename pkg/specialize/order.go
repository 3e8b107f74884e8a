package specialize

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/offloadd/offloadd/pkg/ir"
)

// finish orders states and rules, and numbers chains.
func (p *Program) finish() {
	p.collect()
	p.number()
	for _, e := range p.Entries {
		if !e.isOrdered {
			e.Rules, e.isOrdered = ordered(e.Rules), true
		}
	}
	for _, s := range p.States {
		if !s.isOrdered {
			s.Rules, s.isOrdered = ordered(s.Rules), true
		}
	}
}

// next returns the state that a verdict leads to, or nil.
func next(v Verdict) *State {
	switch v := v.(type) {
	case Lookup:
		return v.State
	case Goto:
		return v.State
	case Punt, Drop, *Output:
	}
	return nil
}

// collect finds the states that entries lead to, those first that lead to others.
func (p *Program) collect() {
	var visit func(rules []Leaf)
	visit = func(rules []Leaf) {
		for i := range rules {
			if s := next(rules[i].Verdict); s != nil && !s.seen {
				s.seen = true
				visit(s.Rules)
				p.States = append(p.States, s)
			}
		}
	}
	for _, e := range p.Entries {
		visit(e.Rules)
	}
	slices.Reverse(p.States)
}

// ChainBase is the number of the first chain: Open vSwitch counts the identifiers of its recirculations, which a packet that falls off
// the end of a chain is taken to have, up from 1.
const ChainBase = 0x0e000000

// occupants are the states that have a chain number: of one depth and address family, all asking for tunnels or none, and either one or
// some of different zones.
type occupants struct {
	depth      int
	etherType  uint16
	asksTunnel bool
	zones      map[uint16]struct{} // nil: a state without a zone
}

// number gives each state a chain: as few as possible, such that no packet can be in two states of a chain. Those of a chain are
// equally deep, so that sharing makes no path through the chains longer than the longest through the states, and a state's
// chain has a larger number than those that lead to it. What a state gets does not depend on the order of the walk, nor on each
// port that comes or goes, so that few filters change with one.
func (p *Program) number() {
	depth := map[*State]int{}
	for _, s := range p.States { // those that lead to others come first
		for i := range s.Rules {
			if n := next(s.Rules[i].Verdict); n != nil {
				depth[n] = max(depth[n], depth[s]+1)
			}
		}
	}
	slices.SortStableFunc(p.States, func(a, b *State) int {
		return cmp.Or(cmp.Compare(depth[a], depth[b]), cmp.Compare(a.kin, b.kin), cmp.Compare(a.ID, b.ID))
	})
	var taken []occupants
	level := 0 // the first chain as deep as the state at hand
	for _, s := range p.States {
		for level < len(taken) && taken[level].depth < depth[s] {
			level++
		}
		n := level
		for ; n < len(taken) && !taken[n].admit(s); n++ {
		}
		if n == len(taken) {
			o := occupants{depth: depth[s], etherType: s.EtherType, asksTunnel: s.asksTunnel}
			if s.Tracked {
				o.zones = map[uint16]struct{}{s.Zone: {}}
			}
			taken = append(taken, o)
		}
		s.Chain = ChainBase + uint32(n)
	}
}

// admit adds s if there is place for it.
func (o *occupants) admit(s *State) bool {
	if o.zones == nil || !s.Tracked || o.etherType != s.EtherType || o.asksTunnel != s.asksTunnel {
		return false
	}
	if _, there := o.zones[s.Zone]; there {
		return false
	}
	o.zones[s.Zone] = struct{}{}
	return true
}

// ordered gives rules levels, and drops those that no packet meets since another one asks for the same.
func ordered(rules []Leaf) []Leaf {
	kept := rules[:0]
	seen := map[string]struct{}{}
	for _, r := range rules {
		key := matchKey(r.Match)
		if _, twice := seen[key]; twice {
			continue
		}
		seen[key] = struct{}{}
		kept = append(kept, r)
	}
	// At the end everything is punted: a punt that nothing else overtakes says nothing.
	later := overlaps{}
	for i := len(kept) - 1; i >= 0; i-- {
		r := &kept[i]
		if _, punt := r.Verdict.(Punt); punt {
			r.implied = true
			later.query(r.Match, func(map[string]int) { r.implied = false })
			continue
		}
		later.add(r.Match, "", 0)
	}
	earlier := overlaps{}
	for i := range kept {
		r := &kept[i]
		if r.implied {
			continue
		}
		kind := verdictKey(r.Verdict)
		earlier.query(r.Match, func(levels map[string]int) {
			for k, l := range levels {
				if k != kind {
					r.level = max(r.level, l+1)
				}
			}
		})
		earlier.add(r.Match, kind, r.level)
	}
	return kept
}

// verdictKey is equal for verdicts that do the same.
func verdictKey(v Verdict) string {
	switch v := v.(type) {
	case Punt:
		return "punt"
	case Drop:
		return "drop"
	case Lookup:
		return fmt.Sprintf("ct %d %p", v.Zone, v.State)
	case Goto:
		return fmt.Sprintf("goto %p", v.State)
	case *Output:
		encap := Encap{}
		if v.Encap != nil {
			encap = *v.Encap
		}
		return fmt.Sprintf("%d %v %d %t %p %d %d", v.Port, v.Edits, v.DecTTL, v.Unset, encap.Tunnel, encap.VNI, encap.Option)
	default:
		panic(fmt.Sprintf("specialize: verdict %T", v))
	}
}

// matchKey is equal for equal matches.
func matchKey(m ir.Match) string {
	b := make([]byte, 0, 33*len(m))
	for _, t := range m {
		b = append(b, byte(t.Field))
		for _, x := range [...]uint64{t.Value.Hi, t.Value.Lo, t.Mask.Hi, t.Mask.Lo} {
			b = binary.BigEndian.AppendUint64(b, x)
		}
	}
	return string(b)
}

// overlaps finds, among matches that were added, those that some packet satisfies together with another match. It may find
// more, since it compares hashes, but never less.
type overlaps struct {
	groups []*maskGroup
	byMask map[string]*maskGroup
}

// A maskGroup is matches that ask for the same bits.
type maskGroup struct {
	mask    []bitsOf
	entries []overlapEntry
	indexes map[string]*overlapIndex // by what the masks have in common with another one
}

type bitsOf struct {
	field ir.Field
	mask  ir.U128
}

type overlapEntry struct {
	match ir.Match
	kind  string
	level int
}

// An overlapIndex has, by hash of the common bits, the largest level of each kind.
type overlapIndex struct {
	common []bitsOf
	levels map[uint64]map[string]int
}

func (x *overlapIndex) add(e overlapEntry) {
	h := hashBits(e.match, x.common)
	l := x.levels[h]
	if l == nil {
		l = map[string]int{}
		x.levels[h] = l
	}
	l[e.kind] = max(l[e.kind], e.level)
}

func (o *overlaps) add(m ir.Match, kind string, level int) {
	key := maskKey(m)
	g := o.byMask[key]
	if g == nil {
		g = &maskGroup{indexes: map[string]*overlapIndex{}}
		for _, t := range m {
			g.mask = append(g.mask, bitsOf{t.Field, t.Mask})
		}
		if o.byMask == nil {
			o.byMask = map[string]*maskGroup{}
		}
		o.byMask[key] = g
		o.groups = append(o.groups, g)
	}
	e := overlapEntry{m, kind, level}
	g.entries = append(g.entries, e)
	for _, x := range g.indexes {
		x.add(e)
	}
}

// query calls f with the levels of what may overlap with m.
func (o *overlaps) query(m ir.Match, f func(levels map[string]int)) {
	key := maskKey(m)
	for _, g := range o.groups {
		x := g.indexes[key]
		if x == nil {
			x = &overlapIndex{common: common(g.mask, m), levels: map[uint64]map[string]int{}}
			for _, e := range g.entries {
				x.add(e)
			}
			g.indexes[key] = x
		}
		if l := x.levels[hashBits(m, x.common)]; l != nil {
			f(l)
		}
	}
}

// common returns the bits that both ask for.
func common(a []bitsOf, m ir.Match) []bitsOf {
	var out []bitsOf
	for _, x := range a {
		if t, ok := m.Term(x.field); ok {
			if both := t.Mask.And(x.mask); !both.IsZero() {
				out = append(out, bitsOf{x.field, both})
			}
		}
	}
	return out
}

func hashBits(m ir.Match, bits []bitsOf) uint64 {
	h := uint64(len(bits))
	for _, x := range bits {
		t, _ := m.Term(x.field)
		v := t.Value.And(x.mask)
		h = mix(h ^ v.Hi)
		h = mix(h ^ v.Lo ^ uint64(x.field)<<56)
	}
	return h
}

func maskKey(m ir.Match) string {
	b := make([]byte, 0, 17*len(m))
	for _, t := range m {
		b = append(b, byte(t.Field))
		b = binary.BigEndian.AppendUint64(b, t.Mask.Hi)
		b = binary.BigEndian.AppendUint64(b, t.Mask.Lo)
	}
	return string(b)
}
