package logical

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/offloadd/offloadd/pkg/ir"
)

// Expr is a match expression, simplified: every comparison is an equality, prerequisites and the expansions of
// predicates and parts of fields are in place. It does not change once it is made.
type Expr struct {
	root *node
	refs Refs
}

// Refs returns what the text of the expression refers to.
func (e *Expr) Refs() Refs { return e.refs }

// String returns e as text that parses to an equal expression.
func (e *Expr) String() string { return e.root.String() }

// kind is the kind of a node.
type kind uint8

const (
	cmpNode  kind = iota // sym rel value/mask, or sym rel text
	andNode              // all of sub, which has two or more, none of them an andNode
	orNode               // one of sub, which has two or more, none of them an orNode
	boolNode             // truth
	condNode             // is_chassis_resident(text), negated if truth is false
)

// relop is a relational operator.
type relop uint8

const (
	eq relop = iota
	ne
	lt
	le
	gt
	ge
)

var relopText = [...]string{eq: "==", ne: "!=", lt: "<", le: "<=", gt: ">", ge: ">="}

func (r relop) String() string { return relopText[r] }

// turn returns the operator for which a r b is b r.turn() a.
func (r relop) turn() relop { return [...]relop{eq: eq, ne: ne, lt: gt, le: ge, gt: lt, ge: le}[r] }

// invert returns the operator for which a r b is the opposite of a r.invert() b.
func (r relop) invert() relop { return [...]relop{eq: ne, ne: eq, lt: ge, le: gt, gt: le, ge: lt}[r] }

// node is one node of an expression. Nodes are shared between expressions and never change.
type node struct {
	kind  kind
	rel   relop
	truth bool
	sym   *Symbol // what all comparisons from here down are about; nil if they differ, or there is something else
	value ir.U128 // has no bit outside mask
	mask  ir.U128
	text  string
	sub   []*node
}

var (
	trueNode  = &node{kind: boolNode, truth: true}
	falseNode = &node{kind: boolNode}
)

func boolean(b bool) *node {
	if b {
		return trueNode
	}
	return falseNode
}

// join returns the conjunction or disjunction, according to k, of one or more nodes.
func join(k kind, nodes ...*node) *node {
	if len(nodes) == 1 {
		return nodes[0]
	}
	out := &node{kind: k, sub: nodes, sym: nodes[0].sym}
	n := 0
	for _, sub := range nodes {
		if sub.sym != out.sym {
			out.sym = nil
		}
		if sub.kind == k {
			n += len(sub.sub)
		} else {
			n++
		}
	}
	if n == len(nodes) {
		return out
	}
	out.sub = make([]*node, 0, n)
	for _, sub := range nodes {
		if sub.kind == k {
			out.sub = append(out.sub, sub.sub...)
		} else {
			out.sub = append(out.sub, sub)
		}
	}
	return out
}

// reduce is join of any number of nodes of which those that are true or false are known to be so.
// It reuses the memory of nodes.
func reduce(k kind, nodes []*node) *node {
	neutral := k == andNode
	kept := nodes[:0]
	for _, n := range nodes {
		switch {
		case n.kind != boolNode:
			kept = append(kept, n)
		case n.truth != neutral:
			return n
		}
	}
	if len(kept) == 0 {
		return boolean(neutral)
	}
	return join(k, kept...)
}

// not returns the opposite of n.
func not(n *node) *node {
	out := *n
	switch n.kind {
	case cmpNode:
		out.rel = n.rel.invert()
	case boolNode, condNode:
		out.truth = !n.truth
	case andNode, orNode:
		out.kind = andNode + orNode - n.kind
		out.sub = make([]*node, len(n.sub))
		for i, sub := range n.sub {
			out.sub[i] = not(sub)
		}
	}
	return &out
}

// level returns the level of measurement of a predicate that stands for n.
func (n *node) level() Level {
	switch n.kind {
	case cmpNode:
		return min(n.sym.Level, Boolean)
	case boolNode, condNode:
		return Boolean
	case andNode, orNode:
	}
	l := Boolean
	for _, sub := range n.sub {
		l = min(l, sub.level())
	}
	return l
}

// String returns n as text that parses to an equal expression.
func (n *node) String() string {
	var b strings.Builder
	n.print(&b)
	return b.String()
}

func (n *node) print(b *strings.Builder) {
	switch n.kind {
	case cmpNode:
		n.printCmp(b)
	case boolNode:
		if n.truth {
			b.WriteByte('1')
		} else {
			b.WriteByte('0')
		}
	case condNode:
		if !n.truth {
			b.WriteByte('!')
		}
		b.WriteString("is_chassis_resident(" + quote(n.text) + ")")
	case andNode, orNode:
		for i, sub := range n.sub {
			if i > 0 && n.kind == andNode {
				b.WriteString(" && ")
			} else if i > 0 {
				b.WriteString(" || ")
			}
			if sub.kind == andNode || sub.kind == orNode {
				b.WriteByte('(')
				sub.print(b)
				b.WriteByte(')')
			} else {
				sub.print(b)
			}
		}
	}
}

// printCmp prints a comparison, with a mask that is a range of bits as a part of the field, and a test of one bit
// as that bit or its negation.
func (n *node) printCmp(b *strings.Builder) {
	if n.sym.Width == 0 {
		fmt.Fprintf(b, "%s %s %s", n.sym.Name, n.rel, quote(n.text))
		return
	}
	lo, width := bitRange(n.mask)
	if width == 1 && (n.rel == eq || n.rel == ne) {
		if n.value.Bit(lo) != (n.rel == eq) {
			b.WriteByte('!')
		}
		b.WriteString(n.sym.Name)
		if n.sym.Width > 1 {
			b.WriteString("[" + strconv.Itoa(lo) + "]")
		}
		return
	}
	b.WriteString(n.sym.Name)
	switch {
	case width > 1 && width < n.sym.Width:
		fmt.Fprintf(b, "[%d..%d]", lo, lo+width-1)
	case width == 1 && n.sym.Width > 1:
		fmt.Fprintf(b, "[%d]", lo)
	}
	if width > 0 {
		fmt.Fprintf(b, " %s %s", n.rel, hexText(n.value.Shr(lo)))
	} else {
		fmt.Fprintf(b, " %s %s/%s", n.rel, hexText(n.value), hexText(n.mask))
	}
}

// bitRange returns the lowest bit and the number of bits of mask if they are adjacent, and 0, 0 otherwise.
func bitRange(mask ir.U128) (lo, n int) {
	n = mask.OnesCount()
	if n == 0 {
		return 0, 0
	}
	lo = mask.TrailingZeros()
	if mask != ir.Ones(n).Shl(lo) {
		return 0, 0
	}
	return lo, n
}
