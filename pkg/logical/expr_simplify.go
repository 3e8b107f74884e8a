package logical

import (
	"fmt"

	"github.com/offloadd/offloadd/pkg/ir"
)

// annotate adds the prerequisites of the symbols of n, unless prereqs is false, and puts the field in the place of
// its parts and the expansion in the place of a predicate.
//
// If all comparisons below a node are about one symbol, its prerequisites are added once, at that node.
func annotate(n *node, prereqs bool) *node {
	switch n.kind {
	case boolNode, condNode:
		return n
	case cmpNode:
		return annotateCmp(n, prereqs)
	case andNode, orNode:
	}
	var sym *Symbol
	if prereqs {
		sym = n.sym
	}
	subs := make([]*node, len(n.sub))
	for i, sub := range n.sub {
		subs[i] = annotate(sub, prereqs && sym == nil)
	}
	out := join(n.kind, subs...)
	if sym != nil && sym.prereqs != nil {
		return join(andNode, out, sym.prereqs)
	}
	return out
}

func annotateCmp(n *node, prereqs bool) *node {
	s := n.sym
	out := n
	switch {
	case s.Parent != nil:
		c := *n
		c.sym, c.value, c.mask = s.Parent, n.value.Shl(s.Lo), n.mask.Shl(s.Lo)
		out = &c
	case s.predicate != nil:
		out = s.predicate
		if n.value.Bit(0) == (n.rel == ne) {
			out = not(out)
		}
	}
	if prereqs && s.prereqs != nil {
		return join(andNode, out, s.prereqs)
	}
	return out
}

// mustExpand parses and annotates text, which is part of the symbol table, and returns the level of a predicate that
// stands for it.
func (t *SymbolTable) mustExpand(text string) (Level, *node) {
	p := matchParser{lx: NewLexer(text), st: t}
	n := p.whole()
	if err := p.err(); err != nil {
		panic(fmt.Sprintf("logical: %s: %v", text, err))
	}
	return n.level(), annotate(n, true)
}

// simplify replaces the comparisons of n that are no equalities by disjunctions of equalities of masked values, and
// those that are always true or false by that.
func simplify(n *node, work *budget) *node {
	switch n.kind {
	case boolNode, condNode:
		return n
	case cmpNode:
		if !work.spend(1) {
			return falseNode
		}
		switch {
		case n.sym.Width == 0:
			return n
		case n.rel == eq && n.mask.IsZero():
			return trueNode
		case n.rel == eq:
			return n
		case n.rel == ne:
			return simplifyNE(n, work)
		default:
			return simplifyOrder(n, work)
		}
	case andNode, orNode:
	}
	subs := make([]*node, len(n.sub))
	same := true
	for i, sub := range n.sub {
		subs[i] = simplify(sub, work)
		same = same && subs[i] == sub && sub.kind != boolNode
	}
	if same {
		return n
	}
	return reduce(n.kind, subs)
}

// equal returns the comparison with value/mask of the field that n compares.
func (n *node) equal(value, mask ir.U128) *node {
	return &node{kind: cmpNode, sym: n.sym, value: value.And(mask), mask: mask}
}

// simplifyNE says that one of the bits differs.
func simplifyNE(n *node, work *budget) *node {
	var bits []*node
	for m := n.mask; !m.IsZero(); {
		bit := ir.U64(1).Shl(m.TrailingZeros())
		m = m.AndNot(bit)
		bits = append(bits, n.equal(n.value.Xor(bit), bit))
	}
	work.spend(len(bits))
	return reduce(orNode, bits)
}

// simplifyOrder splits the numbers below or above the value into those that share a prefix with it and differ in
// the next bit.
func simplifyOrder(n *node, work *budget) *node {
	lo, width := bitRange(n.mask)
	less := n.rel == lt || n.rel == le
	orEqual := n.rel == le || n.rel == ge
	flip := n.value // the bits that can differ: those whose change makes the number smaller, or larger
	if !less {
		flip = n.mask.AndNot(n.value)
	}
	if opposite := n.mask.AndNot(flip); opposite.IsZero() {
		// All numbers but the value itself are on this side of it.
		if orEqual {
			return trueNode
		}
		return simplifyNE(n, work)
	}
	var prefixes []*node
	if orEqual {
		prefixes = append(prefixes, n.equal(n.value, n.mask))
	}
	for z := lo; z < lo+width; z++ {
		if flip.Bit(z) {
			mask := n.mask.AndNot(ir.Ones(z))
			prefixes = append(prefixes, n.equal(n.value.Xor(ir.U64(1).Shl(z)), mask))
		}
	}
	work.spend(len(prefixes))
	return reduce(orNode, prefixes)
}

// evaluate replaces the conditions of n by what resident says about their port.
func evaluate(n *node, resident func(port string) bool) *node {
	switch n.kind {
	case boolNode, cmpNode:
		return n
	case condNode:
		return boolean(resident(n.text) == n.truth)
	case andNode, orNode:
	}
	subs := make([]*node, len(n.sub))
	same := true
	for i, sub := range n.sub {
		subs[i] = evaluate(sub, resident)
		same = same && subs[i] == sub
	}
	if same {
		return n
	}
	return reduce(n.kind, subs)
}
